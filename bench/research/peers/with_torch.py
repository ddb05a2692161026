"""torch-levenberg-marquardt, with PyTorch's derivatives."""

from __future__ import annotations

import itertools

import torch
from torch_levenberg_marquardt.damping import StandardDampingStrategy
from torch_levenberg_marquardt.training import LevenbergMarquardtModule

from ...speed.peers import formulas
from ...speed.peers.torch_peer import LIBRARY
from .with_jax import error


class Residuals(torch.nn.Module):
    """What the losses of samples (x, network's input, target), side by side, are squares of."""

    def __init__(self, problem, theta):
        super().__init__()
        self.problem = problem
        self.theta = torch.nn.Parameter(torch.as_tensor(theta))
        self.sizes = [array.shape[1] for array in problem.batch(0, 1)]

    def forward(self, samples):
        return torch.func.vmap(self.of_sample)(*samples.split(self.sizes, dim=1))

    def of_sample(self, x, net_input, target):
        layers = self.problem.network.layers
        pairs = formulas.parameters(self.theta, layers)
        u = formulas.control(torch, layers, pairs, net_input)
        return error(torch, self.problem.loss, self.simulate(x, u), target)

    def simulate(self, x, u):
        return formulas.simulate(LIBRARY, self.problem.solver, x, u)


def torch_lm(problem, batch, seed, clock, starting_value):
    """Levenberg-Marquardt on the smaller side, tried up to ten times a step."""
    trainer = LevenbergMarquardtModule(
        Residuals(problem, clock.theta.copy()),
        damping_strategy=StandardDampingStrategy(starting_value=starting_value),
    )

    def step(number):
        arrays = (torch.as_tensor(array) for array in problem.batch(number, batch))
        samples = torch.cat(list(arrays), dim=1)
        zero = torch.zeros(len(samples), problem.solver.output_size, dtype=samples.dtype)
        trainer.training_step(samples, zero)

    clock.start(clock.theta)
    for number in itertools.count():
        step(number)
        if clock.tick(trainer.flat_params.numpy()):
            return
