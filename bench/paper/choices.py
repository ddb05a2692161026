"""What b, eta, tau and kappa do: one of them changed at a time, around the paper's setting."""

from __future__ import annotations

import dataclasses

import numpy as np

from higcore import fit

from ..experiments import Setting

BATCH_FACTORS = (0.25, 0.5, 1, 2, 4)  # of the paper's batch
LR_FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)  # of the paper's eta
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


def choices(experiment, epochs, seeds, say, keep):
    """Train with every setting and seed; return ``{parameter: {value: {seed: record}}}``.

    Epochs, not seconds: the losses are then those of any machine, whatever else it does. All
    settings of a seed come before the next seed; ``keep(found)`` is called after every run.
    """
    known = settings(experiment.settings["hig"])
    found = {name: {f"{value:g}": {} for value in values} for name, values in known.items()}
    for seed in seeds:
        problem, trained = experiment.problem(seed), {}  # the paper's setting comes up four times
        for name, values in known.items():
            for value, setting in values.items():
                say(f"{experiment.name}, seed {seed}: {name} {value:g}")
                if setting not in trained:
                    trained[setting] = _train(problem, setting, epochs, seed)
                found[name][f"{value:g}"][str(seed)] = trained[setting]
                keep(found)
    return found


def _train(problem, setting, epochs, seed):
    run = fit(problem, setting.optimizer, batch=setting.batch, epochs=epochs, seed=seed)
    if run.status == "interrupted":
        raise KeyboardInterrupt
    curve = run.history.to_dict()
    return {
        "status": run.status,
        "test_loss": run.test_loss,
        "rank": run.state.info.rank if run.state.info else None,
        "curve": {name: curve[name] for name in ("step", "test_loss")},
    }


def test_losses(by_seed):
    """The test loss of each seed at the end; infinite where training failed."""
    return [run["test_loss"] if run["status"] == "budget" else np.inf for run in by_seed.values()]
