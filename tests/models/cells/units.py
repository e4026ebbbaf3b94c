"""The tests of several cells share these random parameters, states and numpy versions of the layers."""

import numpy as np
import torch
from scipy import ndimage

SHAPES = {2: (7, 6), 3: (3, 6, 5)}


def randomised(unit, seed=0):
    """Draw the vectors of a unit at random, in float64, so that no term of an equation hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unit.named_parameters():
            if parameter.ndim == 1:
                values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(values * 2 - 1 if "norm" in name else values * 2 - 0.5)
    return unit.double()


def states(dimension, channels=3, count=2, batch=2, seed=0):
    """Draw random arrays (b, c, n) in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, batch, channels, *SHAPES[dimension])
    return torch.randn(shape, generator=generator, dtype=torch.float64).unbind()


def set_to(unit, **values):
    """Fill the named parameters of a unit with a value each."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(unit, name).fill_(value)
    return unit


class ByHand:
    """Layers computed in numpy with the parameters of a unit; r is (b, c, n) everywhere."""

    def __init__(self, unit):
        self.p = {name: value.detach().numpy() for name, value in unit.named_parameters()}

    def vector(self, name, r):
        return self.p[name].reshape(1, -1, *[1] * (r.ndim - 2))

    def convolved(self, r, name, symmetric=False, mode="constant"):
        """Correlate with the named kernel, padded by scipy, and add its bias if it has one."""
        kernel = self.p[name]
        kernel = (kernel + kernel.swapaxes(0, 1)) / 2 if symmetric else kernel
        result = np.stack(
            [
                [sum(ndimage.correlate(a, k, mode=mode) for a, k in zip(patch, row, strict=True)) for row in kernel]
                for patch in r
            ]
        )
        bias = name.removesuffix("weight") + "bias"
        return result + self.vector(bias, r) if name.endswith("weight") and bias in self.p else result

    def norm(self, r, name, axes, epsilon):
        mean, variance = r.mean(axes, keepdims=True), r.var(axes, keepdims=True)
        return self.vector(f"{name}.bias", r) + self.vector(f"{name}.gain", r) * (r - mean) / np.sqrt(
            variance + epsilon
        )

    def instance(self, r, name):
        return self.norm(r, name, tuple(range(2, r.ndim)), 1e-5)


def sigmoid(r):
    return 1 / (1 + np.exp(-r))


def relu(r):
    return np.maximum(r, 0)


def softplus(r):
    return np.log1p(np.exp(r))


def elu(r):
    return np.where(r > 0, r, np.expm1(np.minimum(r, 0)))


def dense_operator(layer, channels, shape):
    """The matrix of a layer: column k is what it makes of the k-th unit vector."""
    units = torch.eye(channels * int(np.prod(shape)), dtype=torch.float64).reshape(-1, channels, *shape)
    with torch.no_grad():
        return layer.double()(units).reshape(len(units), -1).numpy().T
