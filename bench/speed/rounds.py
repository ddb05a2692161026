"""Seconds of stages in processes with so many cores, or ranks, which are started in turn."""

from __future__ import annotations

from statistics import median


def in_turn(counts, timed, table, rounds, say, keep):
    """``{name: table(medians)}`` of what ``timed(count)`` says, ``{name: {stage: seconds}}``.

    ``medians`` are ``{count: {stage: seconds}}`` over the rounds.
    """
    runs, found = {}, {}
    for number in range(rounds):
        for count in counts:
            say(f"round {number + 1} of {rounds}, {count}")
            for name, stages in timed(count).items():
                runs.setdefault(name, {}).setdefault(str(count), []).append(stages)
        found = {name: table(medians(of_name)) for name, of_name in runs.items()}
        keep({"seconds": found})
    return found


def medians(runs):
    """Of each stage, over the rounds of each count."""
    return {
        count: {stage: median(run[stage] for run in of_count) for stage in of_count[0]}
        for count, of_count in runs.items()
    }
