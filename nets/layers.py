"""Layers as stateless objects: forward, backward, tangent and rows stand side by side.

A layer knows where its parameters lie in the flat vector theta. Shapes: b samples, r cotangents
a sample, n_in inputs, n_out outputs.
"""

from __future__ import annotations

import numpy as np

from higcore.linearisation import OuterProductRows

from .activations import ACTIVATIONS


class Dense:
    """a_out = act(a W + c) with W (n_in, n_out) and bias c (n_out,)."""

    def __init__(self, n_in, n_out, activation, start):
        self.n_in, self.n_out, self.start = n_in, n_out, start
        self.activation = ACTIVATIONS[activation]
        self.size = (n_in + 1) * n_out

    def parameters(self, theta):
        """Views of theta (t,): W (n_in, n_out) and c (n_out,)."""
        split = self.start + self.n_in * self.n_out
        weights = theta[self.start : split].reshape(self.n_in, self.n_out)
        return weights, theta[split : self.start + self.size]

    def init(self, rng, theta):
        """Write Glorot-uniform weights and zero biases into theta."""
        weights, bias = self.parameters(theta)
        limit = np.sqrt(6.0 / (self.n_in + self.n_out))
        weights[:] = rng.uniform(-limit, limit, weights.shape)
        bias[:] = 0

    def forward(self, theta, a):
        """a (b, n_in) -> a_out (b, n_out)."""
        weights, bias = self.parameters(theta)
        return self.activation.value(a @ weights + bias)

    def tangent(self, theta, dtheta, a, a_out, da):
        """da_out = act'(z) * (a dW + da W + dc)."""
        weights, _ = self.parameters(theta)
        dweights, dbias = self.parameters(dtheta)
        return self.activation.slope(a_out) * (a @ dweights + da @ weights + dbias)

    def backward(self, theta, theta_bar, a, a_out, a_out_bar):
        """Write W_bar and c_bar into theta_bar, return a_bar: a_out_bar (b, n_out) -> (b, n_in)."""
        weights, _ = self.parameters(theta)
        weights_bar, bias_bar = self.parameters(theta_bar)
        delta = a_out_bar * self.activation.slope(a_out)
        weights_bar[:] = a.T @ delta  # (n_in, b) x (b, n_out)
        bias_bar[:] = delta.sum(axis=0)
        return delta @ weights.T  # (b, n_out) x (n_out, n_in)

    def rows(self, a, a_out, a_out_rows):
        """Factors of this layer's rows of J, for the rows (b, r, n_out) that reach its output."""
        delta = a_out_rows * self.activation.slope(a_out)[:, None, :]
        return OuterProductRows(a, delta, self.start)

    def pull_rows(self, theta, delta):
        """Rows at the layer's input: delta (b, r, n_out) -> (b, r, n_in)."""
        weights, _ = self.parameters(theta)
        b, r, n_out = delta.shape
        return (delta.reshape(b * r, n_out) @ weights.T).reshape(b, r, self.n_in)
