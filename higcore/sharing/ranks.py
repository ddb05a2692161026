"""The processes that make one run: a process alone, or the ranks of an MPI communicator.

All ranks run the same program on the same numbers, so that each knows what the others do next. What
is not so by itself, as the time, is the first rank's to say. Whatever ranks have to do together
begins with a meeting, one number from each: who raised an exception in the meantime says so there,
wherever the others are, and it is raised on all of them. So nobody waits for who does not come.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import pickle
import platform
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from ..backend import Array, is_host, module_of, synchronize, to_host
from ..device.threads import cores
from ..validation import check_flag, check_has

NEEDED = ("Get_rank", "Get_size", "Allreduce", "Allgather", "Allgatherv", "Alltoall", "allgather",
          "bcast", "Abort")  # fmt: skip
LOOKED_AT = 1024  # numbers of an array, at most, by which ranks see that they hold the same one

T = TypeVar("T")


class Alone:
    """One process, which has nobody to wait for; with the methods of `Ranks`."""

    is_first = True
    beside = 1

    def together(self, work: Callable[[], T]) -> T:
        """Return ``work()``."""
        return work()

    def agreed(self, value: T) -> T:
        """Return it."""
        return value

    def any_of(self, value: T) -> T:
        """Return it."""
        return value

    def dealt(self, items: Sequence[T]) -> Sequence[T]:
        """Return all of them."""
        return items

    def exchange(self, part: Callable[[T], Array], items: Sequence[T]) -> bool:
        """Return False: nothing is missing."""
        return False

    def end_all(self) -> None:
        """Nobody else is there."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """As ever."""
        yield


ALONE = Alone()


def passing(method: Callable[..., T]) -> Callable[..., T]:
    """A method in which ranks wait for what others hand over: an exception there ends all."""

    @functools.wraps(method)
    def passes(self: Ranks, *arguments: Any) -> T:
        try:
            return method(self, *arguments)
        except BaseException:
            self.end_all()
            raise

    return passes


class Share(NamedTuple):
    """Samples of a batch: those that a rank computes, and how many each rank has.

    A rank that has none computes one that is another's, and what comes of it is left out: nets and
    solvers need not know of arrays without samples.
    """

    own: slice
    counts: list[int]


class Ranks:
    """The ranks of a communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Whose ranks make the run.
    cuda_aware : bool
        Whether this MPI takes arrays on a GPU; else they go through the host.

    Attributes
    ----------
    rank, count : int
        Number of this rank and how many there are.
    is_first : bool
        Whether this is the rank that decides, speaks and writes.
    beside : int
        The largest number of ranks that have the same cores.
    """

    def __init__(self, comm: Any, cuda_aware: bool = False) -> None:
        check_has("comm", comm, NEEDED, "such as mpi4py.MPI.COMM_WORLD")
        check_flag("cuda_aware", cuda_aware)
        self.comm, self.cuda_aware = comm, cuda_aware
        self.rank, self.count = int(comm.Get_rank()), int(comm.Get_size())
        self.is_first = self.rank == 0
        places = comm.allgather((platform.node(), _own_cores()))
        same = [sum(node == n and bool(own & o) for n, o in places) for node, own in places]
        self.beside = max(same)

    # What is said

    def together(self, work: Callable[[], T], seen: int = 0) -> T:
        """Return ``work()``; what one rank raises, all raise.

        ``seen`` is a digest of what all ranks should have alike.
        """
        try:
            found = work()
        except Exception as error:
            if not is_of_all(error):
                self._meet(seen, error)
            raise
        self._meet(seen)
        return found

    def _meet(self, seen: int = 0, error: Exception | None = None) -> None:
        """Wait for all ranks; raise the first one's exception if there are any."""
        own = np.array([error is not None, seen, seen * seen], np.int64)
        total = np.empty_like(own)
        self.comm.Allreduce(own, total)
        failed, mean, squares = total.tolist()
        if failed:
            self._raise_first(error)
        if mean * mean != self.count * squares:  # not all are the same
            raise _of_all(RuntimeError(
                "ranks are not at the same place of the same program, or hold other numbers: all "
                "need the same seed, theta, data and optimizer, and the same kind of processor; "
                "what the first rank alone does, as a callback, takes the problem that is not "
                "shared"
            ))  # fmt: skip

    def _raise_first(self, own: Exception | None) -> None:
        found = self.comm.allgather(own and _portable(own, self.rank))
        number = next(k for k, error in enumerate(found) if error is not None)
        raise _of_all(own if own is not None and number == self.rank else found[number])

    def agreed(self, value: T) -> T:
        """Return what the first rank says."""
        self._meet()
        said: T = self.comm.bcast(value)
        return said

    def any_of(self, value: T) -> T:
        """Return the first value that is not empty, in the order of ranks, or this one."""
        self._meet()
        return next(filter(None, self.comm.allgather(value)), value)

    def end_all(self) -> None:
        """End all processes at once, where ranks cannot meet any more."""
        traceback.print_exc()
        sys.stderr.flush()
        self.comm.Abort(1)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For the block, cores are shared out, and ranks but the first one are silent."""
        log = logging.getLogger("higcore")
        was_silent = log.disabled
        with threadpool_limits(max(1, cores() // self.beside)), warnings.catch_warnings():
            if not self.is_first:
                log.disabled = True
                warnings.simplefilter("ignore")
            try:
                yield
            finally:
                log.disabled = was_silent

    # Who does what

    def share(self, count: int) -> Share:
        """Return the `Share` of so many samples; ranks have consecutive ones, about as many each.

        Where there are enough, they come in pairs. BLAS computes two columns at a time, and an odd
        one in another way: of pairs all results have the bits that they have in a whole batch.
        """
        unit = 2 if count >= 2 * self.count else 1
        ends = [unit * round(count * k / (unit * self.count)) for k in range(self.count)]
        return self._share([*ends, count])

    def share_of(self, whole: Share, samples: slice) -> Share:
        """Return that of a slice of samples; ``own`` counts from the first that this rank has."""
        ends = np.cumsum([0, *whole.counts]).clip(samples.start, samples.stop)
        return self._share(ends.tolist(), whole.own.start)

    def _share(self, ends: list[int], first: int = 0) -> Share:
        counts = [stop - start for start, stop in pairwise(ends)]
        start, stop = ends[self.rank] - first, ends[self.rank + 1] - first
        return Share(slice(start, stop) if stop > start else slice(0, 1), counts)

    def own(self, array: Array, share: Share) -> Array:
        """Return this rank's samples of an array (b, ...), 0 where it has none."""
        part = array[share.own]
        return part if share.counts[self.rank] else 0 * part

    def dealt(self, items: Sequence[T]) -> Sequence[T]:
        """Return those items, of falling size, that are this rank's: to and fro, as cards."""
        return [item for k, item in enumerate(items) if self._turn(k) == self.rank]

    def _turn(self, k):
        lap, place = divmod(k, self.count)
        return self.count - 1 - place if lap % 2 else place

    # What is passed on

    @passing
    def gathered(self, array: Array, share: Share) -> Array:
        """Return all samples (b, ...), of which every rank has its own, in the order of ranks."""
        own = self._sent(array[: share.counts[self.rank]])
        found = module_of(own).empty((sum(share.counts), *own.shape[1:]), own.dtype)
        width = math.prod(own.shape[1:])
        self.comm.Allgatherv(own, (found, [count * width for count in share.counts]))
        return self._received(found, array)

    @passing
    def summed(self, array: Array) -> Array:
        """Return the sum over ranks of arrays (t,), the same bits on all of them.

        Each adds up a part of it, in the order of ranks, and all gather the parts: 2 t numbers.
        """
        t, part = len(array), -(-len(array) // self.count)
        xp = module_of(array)
        padded = xp.zeros(self.count * part, array.dtype)
        padded[:t] = array
        sent = self._sent(padded)
        found = module_of(sent).empty_like(sent)
        self.comm.Alltoall(sent, found)
        self.comm.Allgather(self._sent(found.reshape(self.count, part).sum(axis=0)), sent)
        return self._received(sent, array)[:t]

    @passing
    def exchange(self, part: Callable[[T], Array], items: Sequence[T]) -> bool:
        """Fill in the parts that others have computed; True if there are others.

        ``part(item)`` is an array in float64 on the host, of an item as they were `dealt`.
        """
        parts = [(part(item), self._turn(k)) for k, item in enumerate(items)]
        sizes = [sum(p.size for p, turn in parts if turn == rank) for rank in range(self.count)]
        found, places = np.empty(sum(sizes)), np.cumsum([0, *sizes])
        slots = []
        for array, turn in parts:
            slots.append(found[places[turn] :][: array.size].reshape(array.shape))
            places[turn] += array.size
            if turn == self.rank:
                slots[-1][:] = array
        self.comm.Allgatherv(None, (found, sizes))  # this rank's are in their place
        for (array, turn), slot in zip(parts, slots, strict=True):
            if turn != self.rank:
                array[:] = slot
        return self.count > 1

    def _sent(self, array):
        """An array in the form that MPI takes."""
        if self.cuda_aware and not is_host(array):
            array = module_of(array).ascontiguousarray(array)
            synchronize(array)
            return array
        return np.ascontiguousarray(to_host(array))

    def _received(self, array, like):
        """It, where ``like`` lives."""
        return module_of(like).asarray(array)


def digest(*arrays: Array) -> int:
    """16 bits of arrays, by some of their numbers: enough to see that ranks have come apart."""
    found = 0
    for array in arrays:
        flat = array.reshape(-1)
        some = flat[:: max(1, len(flat) // LOOKED_AT)]
        found = zlib.crc32(to_host(some).tobytes(), found)
    return found & 0xFFFF


def is_of_all(error: Exception) -> bool:
    """Whether all ranks have raised an exception, and need not tell each other again."""
    return getattr(error, "of_all_ranks", False)


def _own_cores():
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _of_all(error: Exception) -> Exception:
    """An exception that all ranks are about to raise."""
    error.of_all_ranks = True  # type: ignore[attr-defined]
    return error


def _portable(error: Exception, rank: int) -> Exception:
    """An exception as it can be sent, with where it was raised."""
    where = "".join(traceback.format_exception(error))
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # of somebody's own class
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"on rank {rank}:\n{where}")
    return copy
