"""What b, eta, tau and kappa do: one of them changed at a time, around the paper's setting."""

from __future__ import annotations

import dataclasses

from higcore import fit

from .experiments import Setting

BATCH_FACTORS = (0.25, 0.5, 1, 2, 4)  # of the paper's batch
LR_FACTORS = (0.25, 0.5, 1, 2, 4, 8)  # of the paper's eta
TAUS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
KAPPAS = (0.0, -0.25, -0.5, -0.75, -1.0)


def settings(paper):
    """``{parameter: {value: Setting}}`` around a HIG setting."""
    hig, batch = paper.optimizer, paper.batch
    values = {"lr": [factor * hig.lr for factor in LR_FACTORS], "tau": TAUS, "kappa": KAPPAS}
    batches = [int(factor * batch) for factor in BATCH_FACTORS]
    return {"batch": {size: Setting(size, hig) for size in batches}} | {
        name: {v: Setting(batch, dataclasses.replace(hig, **{name: v})) for v in known}
        for name, known in values.items()
    }


def choices(experiment, epochs, seed, say, keep):
    """Train with every setting for some epochs; return ``{parameter: {value: record}}``.

    Epochs, not seconds: the losses are then those of any machine, whatever else it does.

    ``keep(found)`` is called after every run.
    """
    problem, found = experiment.problem(seed), {}
    for parameter, known in settings(experiment.settings["hig"]).items():
        found[parameter] = {}
        for value, setting in known.items():
            say(f"{experiment.name}: {parameter} {value:g}")
            run = fit(problem, setting.optimizer, batch=setting.batch, epochs=epochs, seed=seed)
            found[parameter][f"{value:g}"] = {
                "test_loss": run.test_loss,
                "best_test_loss": run.best_test_loss,
                "status": run.status,
                "epochs": run.epochs,
                "seconds": run.seconds,
                "seconds_per_step": run.seconds_per_step,
                "rank": run.state.info.rank if run.state.info else None,
            }
            keep(found)
    return found
