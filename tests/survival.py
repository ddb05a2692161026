"""Kill runs with SIGKILL while they save, and load what is left: ``python tests/survival.py``.

A process saves in a tight loop a counter and arrays that are functions of it, and reports every
save that is done. At a random moment it is killed. The file must then load and hold, in every bit,
the last state reported or the one after it. The next process goes on from there. The test suite
makes a few such trials; 200 take less than a minute.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

# Processes are forked, which threads of a BLAS would not survive.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from higcore import Result, load_checkpoint, save_checkpoint
from higcore.training.result import Epoch, State

SIZE = 100_000  # numbers in an array; a file has 1.6 MB
WORD = 8  # bytes of a reported counter


def run_at(n):
    """The result whose every part is a function of n."""
    theta = np.sqrt(np.arange(SIZE) + n)
    history = [Epoch(k / 4, k, k / 8, 1 / (k + 1), 1 / (k + 2)) for k in range(n % 10)]
    return Result(State(theta, {"mean": -n * theta, "updates": n}, n, n / 8), history, 4)


def equal(a, b):
    """Whether two results agree in every bit."""
    return (
        a.theta.tobytes() == b.theta.tobytes()
        and a.state.optimizer["mean"].tobytes() == b.state.optimizer["mean"].tobytes()
        and a.state.optimizer["updates"] == b.state.optimizer["updates"]
        and (a.steps, a.seconds, a.history, a.batch) == (b.steps, b.seconds, b.history, b.batch)
    )


def save_forever(path, n, reports):
    """What the killed process does: save, report, count on."""
    while True:
        n += 1
        save_checkpoint(path, run_at(n))
        os.write(reports, n.to_bytes(WORD, "big"))


def start(path, n):
    """Fork a process that saves forever; return its id and the pipe of its reports."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    try:
        os.close(reading)
        save_forever(path, n, writing)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def kill_one(path, n, delay):
    """Kill a process ``delay`` seconds after its first save; return the last counter it reported.

    It went on from the counter n.
    """
    process, reports = start(path, n)
    with open(reports, "rb") as stream:
        words = stream.read(WORD)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        words += stream.read()
    if not os.WIFSIGNALED(status):
        raise SystemExit("the saving process ended before it was killed")
    return int.from_bytes(words[-WORD:], "big")


def outcome(path, reported):
    """What the file holds after a kill: (verdict, counter)."""
    try:
        found = load_checkpoint(path)
    except (OSError, ValueError) as error:
        return f"corrupt: {error}", reported
    if not equal(found, run_at(found.steps)):
        return "corrupt: a mixture of states", reported
    in_time = found.steps in (reported, reported + 1)
    return ("good" if in_time else f"lost: {found.steps} after {reported}"), found.steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to save; by default a temporary folder.")
    options = parser.parse_args()
    rng, n, verdicts, amid = np.random.default_rng(options.seed), 0, [], 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "run.npz"
        begin = time.perf_counter()
        save_checkpoint(path, run_at(0))
        interval = time.perf_counter() - begin
        for _ in range(options.trials):
            reported = kill_one(path, n, rng.uniform(0, 6 * interval))
            verdict, n = outcome(path, reported)
            verdicts.append(verdict)
            if partial := list(path.parent.glob(".*.partial.npz")):
                amid += 1
                partial[0].unlink()
    corrupt, lost = (sum(v.startswith(word) for v in verdicts) for word in ("corrupt", "lost"))
    for verdict in sorted(set(verdicts) - {"good"}):
        print(verdict)
    print(
        f"{len(verdicts)} kills, {amid} of them in the middle of a write, {n} saves of {2 * SIZE} "
        f"numbers: {corrupt} corrupt, {lost} lost beyond the last interval"
    )
    return bool(corrupt or lost)


if __name__ == "__main__":
    sys.exit(main())
