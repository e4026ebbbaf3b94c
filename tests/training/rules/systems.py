"""Recurrences with answers in closed form, and the published contractive network."""

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.models import reference
from pipeline.models.hgru_contour import HGRUContour


class Linear:
    """h' = A h + B x, with h (b, n) and x (b, m): h* = (I - A)^-1 B x."""

    def __init__(self, a, b=None):
        self.a = torch.as_tensor(a, dtype=torch.float64).clone().requires_grad_()
        self.b = torch.eye(len(self.a), dtype=torch.float64) if b is None else b

    def initial(self, x):
        return torch.zeros(len(x), len(self.a), dtype=x.dtype)

    def step(self, x, state):
        return state @ self.a.T + x @ self.b.T


class Pair(Linear):
    """The same, with a state of two tensors."""

    def initial(self, x):
        return tuple(super().initial(x).split(len(self.a) // 2, dim=1))

    def step(self, x, state):
        return tuple(super().step(x, torch.cat(state, dim=1)).split(len(self.a) // 2, dim=1))


def contraction(n=6, radius=0.5, seed=0):
    """A random matrix of this spectral radius, neither symmetric nor positive."""
    a = np.random.default_rng(seed).normal(size=(n, n))
    return torch.from_numpy(a * radius / np.abs(np.linalg.eigvals(a)).max())


def drive(n=6, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, generator=generator, dtype=torch.float64)


class Published:
    """The contractive contour network of the reference arrays, its image and target."""

    def __init__(self, folder):
        self.arrays = np.load(folder / "crbp_rbp_contractive_f64.npz")
        self.image = torch.from_numpy(self.arrays["img"])
        self.target = torch.from_numpy(self.arrays["target"])

    def network(self):
        network = HGRUContour(5).double()
        network.load_state_dict(reference.contour(reference.tensors_of(self.arrays)))
        return network

    def gradients(self, rule, steps, scale=1.0):
        """Gradients of the loss times ``scale``, over ``scale``; and the trajectory."""
        network = self.network()
        x = network.drive(self.image)
        path = rule(network, x, steps)
        (scale * F.cross_entropy(network.read(path.state, x, self.image), self.target)).backward()
        return {name: p.grad / scale for name, p in network.named_parameters() if p.grad is not None}, path

    def error(self, gradients, prefix):
        """Distance to the gradients of a prefix, relative to their norm, all parameters together."""
        expected = reference.contour(reference.tensors_of(self.arrays, prefix))
        assert expected.keys() == gradients.keys()
        difference = torch.cat([(gradients[name] - expected[name]).flatten() for name in expected])
        return (difference.norm() / torch.cat([tensor.flatten() for tensor in expected.values()]).norm()).item()
