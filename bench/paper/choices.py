"""What b, eta, tau and kappa do: one of them changed at a time, around the paper's setting.

The same for the batch and the parameters of AdaptiveHIG, around its defaults.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from higcore import AdaptiveHIG, fit

from ..experiments import Setting

BATCH_FACTORS = (0.25, 0.5, 1, 2, 4)  # of the paper's batch
LR_FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)  # of the paper's eta
WITH_BATCH = 0.75  # power of b with which eta goes, for a step of HIG to remain what it is
TAUS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
KAPPAS = (0.0, -0.25, -0.5, -0.75, -1.0)


ADAPTIVE = {
    "mu": (0.0, 0.25, 0.375, 0.5, 0.75),
    "momentum": (0.0, 0.5, 0.9, 0.95, 0.98, 0.99),
    "reach": (0.05, 0.1, 0.2, 0.5, 1.0),
    "others": (32, 64, 128, 256, 512),
}


def settings(used, most):
    """``{parameter: {value: Setting}}`` around a setting, with batches of ``most`` samples."""
    optimizer, batch = used.optimizer, used.batch
    batches = [int(factor * batch) for factor in BATCH_FACTORS if factor * batch <= most]
    if isinstance(optimizer, AdaptiveHIG):
        values = ADAPTIVE
    else:
        values = {"lr": [factor * optimizer.lr for factor in LR_FACTORS]}
        values |= {"tau": TAUS, "kappa": KAPPAS}
    found = {"batch": {size: Setting(size, optimizer) for size in batches}} | {
        name: {v: Setting(batch, dataclasses.replace(optimizer, **{name: v})) for v in known}
        for name, known in values.items()
    }
    if not isinstance(optimizer, AdaptiveHIG):  # of a mean, g falls as 1/b; J has more rows, too
        scaled = {size: optimizer.lr * (size / batch) ** WITH_BATCH for size in batches}
        found["batch, lr with it"] = {
            size: Setting(size, dataclasses.replace(optimizer, lr=lr))
            for size, lr in scaled.items()
        }
    return found


def choices(experiment, name, epochs, seeds, say, keep, found):
    """Train with every setting of an optimizer and seed: ``{parameter: {value: {seed: record}}}``.

    Epochs, not seconds: the losses are then those of any machine, whatever else it does. All
    settings of a seed come before the next seed. ``found`` is added to, and what it holds is not
    run again; ``keep(found)`` is called after every run.
    """
    known = settings(experiment.settings[name], experiment.problem().train.count)
    for parameter, values in known.items():
        for value in values:
            found.setdefault(parameter, {}).setdefault(f"{value:g}", {})
    for seed in seeds:
        problem, trained = experiment.problem(seed), {}  # the setting itself comes up on every axis
        for name, values in known.items():
            for value, setting in values.items():
                if str(seed) in found[name][f"{value:g}"]:
                    continue
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
