"""Where runs are computed: in processes of this machine, on ranks of MPI, by workers of Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from higcore.device.threads import cores

from .stopping import processes

KINDS = ("processes", "mpi", "dask")
MPI_COMMAND = "mpiexec -n 5 python -m mpi4py.futures -m bench ..."


class Place(NamedTuple):
    """``executor(workers)`` is entered and is a `concurrent.futures.Executor` then.

    ``workers`` is how many runs it computes at a time.
    """

    executor: Callable[[int], AbstractContextManager[Executor]]
    workers: int


def place(
    kind: str = "processes", scheduler: str | None = None, workers: int | None = None
) -> Place:
    """The place of a kind; ValueError with what is missing for it.

    Parameters
    ----------
    kind : {"processes", "mpi", "dask"}
        mpi: the ranks beside the first of ``mpiexec -n RANKS python -m mpi4py.futures -m bench``.
    scheduler : str, optional
        Address of Dask's, such as "tcp://10.0.0.1:8786", or the path of its scheduler file.
    workers : int, optional
        How many runs at a time; by default as many as there are cores, ranks or Dask's threads.
    """
    if kind != "dask" and scheduler is not None:
        raise ValueError(f"--scheduler goes with --executor dask, got --executor {kind}")
    if kind == "dask" and scheduler is None:
        raise ValueError("--executor dask needs --scheduler, such as tcp://10.0.0.1:8786")
    if kind == "mpi":
        return Place(_ranks, workers or _count_of_ranks())
    if kind == "dask":
        return Place(lambda count: _dask(scheduler), workers or _threads_of(scheduler))
    return Place(processes, workers or cores())


def _count_of_ranks() -> int:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ValueError(f"--executor mpi needs mpi4py: pip install '.[mpi]' ({error})") from error
    if (count := MPI.COMM_WORLD.Get_size() - 1) == 0:
        raise ValueError(f"--executor mpi has no rank to compute on; start it by {MPI_COMMAND}")
    return count


def _ranks(workers: int) -> AbstractContextManager[Executor]:
    from mpi4py.futures import MPIPoolExecutor

    return MPIPoolExecutor(workers)


def _threads_of(scheduler: str | None) -> int:
    with _client(scheduler) as client:
        if count := sum(client.nthreads().values()):
            return count
    raise ValueError(f"Dask's scheduler at {scheduler} has no workers; start some, one thread each")


@contextmanager
def _dask(scheduler: str | None) -> Iterator[Executor]:
    with _client(scheduler) as client, client.get_executor(pure=False) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False)  # what runs would be waited for
            raise


def _client(scheduler):
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(
            f"--executor dask needs distributed: pip install '.[dask]' ({error})"
        ) from error
    options = (
        {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    )
    try:
        return Client(**options, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"no scheduler of Dask answers at {scheduler}: {error}") from error
