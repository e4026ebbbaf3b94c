"""The recurrent sibling of the plain U-Net: the steps of a gamma-Net on a body that processors compute fast.

After Linsley, Kim, Ashok and Serre 2020 (ICLR), like ``gamma_net_3d.py``, but shaped like ``plain_unet.py``: widths are
multiples of 32, the channels stay last, and no norm is left in what runs. Batch norms would need statistics for each
step, so within the recurrence the weights are normalised instead of the activations (``ScaledConv``), which folds.

    image -> space to channels -> stem -> X(0)
    T times:   up the hierarchy     H(l) = cell(X = B(l), H = H(l)),   B(l+1) = f(C pool H(l))
               down again           H(l) = (H(l) + cell(X = H(l), H = f(T H(l+1)))) / 2
    readout of H(0) and X(0) -> channels to space -> logits

    cell    Z  = f(X - f((alpha H + mu) . W_I * (H . s(U_I * H))))           f  ReLU, s  sigmoid, * convolution
            H' = (1 - G) . H + G . g(kappa (C + Z) + omega C . Z)            C = W_E * Z,  G = s(U_E * Z)
                                                                             g  ReLU, at most 6

What differs from the gamma-Net: no gate over the neighbourhood (U_S), kernels that need not be symmetric, no memory
between levels, and the mean on the way down where it has the sum: without norms the state would double with each step.
For the same reason an excited state is at most 6: the product C . Z is quadratic in the state, so that without a bound
some trainings end in infinite values.

Shapes: b = batch, c = channels of a level; z, y, x are those of the level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.geometry import Triple
from pipeline.models import plain_unet
from pipeline.models.axes import as_vec, channels_to_space, check_multiple, space_to_channels, total_stride
from pipeline.models.cells import State
from pipeline.models.cells.blocks import chronos, per_channel
from pipeline.models.folding import ScaledConv, first_outputs
from pipeline.models.gamma_net import GammaNet
from pipeline.models.plain_unet import CUBE, check_levels, conv_norm, relu

STEPS = 3
LARGEST = 6.0
"""The bound of an excited state, that of ReLU6."""
SIZES: dict[str, dict[str, Any]] = {name: {**size, "steps": STEPS} for name, size in plain_unet.SIZES.items()}
"""Arguments of named sizes: those of the plain U-Net, with three steps."""


class Cell(nn.Module):
    """One step of a level, or between two: inhibition, then excitation."""

    def __init__(self, channels: int, kernel: Triple, steps: int) -> None:
        super().__init__()
        self.inhibition_gate = nn.Conv3d(channels, channels, 1)  # U_I
        self.excitation_gate = nn.Conv3d(channels, channels, 1)  # U_E
        self.inhibition = ScaledConv(channels, channels, kernel)  # W_I
        self.excitation = ScaledConv(channels, channels, kernel)  # W_E
        slow = chronos(channels, steps)
        self.inhibition_gate.bias = nn.Parameter(slow.clone())
        self.excitation_gate.bias = nn.Parameter(-slow)
        for name, value in (("alpha", 0.1), ("mu", 0.0), ("kappa", 1.0), ("omega", 0.1)):
            setattr(self, name, nn.Parameter(torch.full((channels,), value)))

    def initial(self, x: Tensor) -> Tensor:
        """The state before the first step: the drive."""
        return x

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One step of the recurrence."""
        return self(x, state)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive X and state H -> new state H', all (b, c, z, y, x)."""
        alpha, mu, kappa, omega = (per_channel(p, h).to(h.dtype) for p in self._constants())
        inhibition = self.inhibition(h * torch.sigmoid(self.inhibition_gate(h)))
        z = F.relu(x - F.relu(torch.addcmul(mu, alpha, h) * inhibition))
        c, gate = self.excitation(z), torch.sigmoid(self.excitation_gate(z))
        candidate = F.hardtanh(kappa * (c + z) + omega * c * z, 0, LARGEST)
        return torch.lerp(h, candidate.to(h.dtype), gate.to(h.dtype))

    def _constants(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.alpha, self.mu, self.kappa, self.omega  # type: ignore[return-value]


class PlainGamma(GammaNet):
    """The network; its arguments stand in a model card, and are those of ``PlainUNet``.

    kernels: of the horizontal connections of each level, and of the convolution that leads up to it.
    steps: T.
    """

    exit: nn.Conv3d
    whole_in_bfloat16 = True
    """With precision bfloat16 its weights and its states are bfloat16 too."""
    dimensions = 3
    skip = "first"  # level 1 receives the image as well

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 128),
        kernels: Sequence[Sequence[int]] = (CUBE,) * 4,
        pools: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
        stride: Sequence[int] = (2, 2, 2),
        steps: int = STEPS,
        in_channels: int = 1,
        out_channels: int = 9,
    ) -> None:
        super().__init__()
        check_levels(widths, kernels, pools)
        if steps < 1:
            raise ModelError(f"steps is {steps}; a recurrent network needs at least one")
        self.stride, self.steps, self.out_channels = as_vec(stride), steps, out_channels
        self.image_channels = in_channels
        self.pools, sizes = [as_vec(pool) for pool in pools], [as_vec(kernel) for kernel in kernels]
        block = self.stride[0] * self.stride[1] * self.stride[2]
        first, gaps = widths[0], list(pairwise(widths))
        self.stem = nn.Sequential(
            *(conv_norm(in_channels * block, first, sizes[0]), nn.ReLU(inplace=True)),
            *(conv_norm(first, first, sizes[0]), nn.ReLU(inplace=True)),
        )
        self.horizontal = nn.ModuleList(Cell(c, k, steps) for c, k in zip(widths, sizes, strict=True))
        self.top_down = nn.ModuleList(Cell(c, (1, 1, 1), steps) for c in widths[:-1])
        self.down = nn.ModuleList(ScaledConv(a, b, k) for (a, b), k in zip(gaps, sizes[1:], strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(b, a, pool, stride=pool) for (a, b), pool in zip(gaps, self.pools, strict=True)
        )
        self.readout = nn.Sequential(conv_norm(2 * first, first, sizes[0]), nn.ReLU(inplace=True))
        self.exit = nn.Conv3d(first, out_channels * block, 1)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    @property
    def multiple(self) -> Triple:
        """A patch must be a multiple of this along z, y, x."""
        return total_stride(self.pools, self.stride)

    def drive(self, image: Tensor) -> Tensor:
        """Image (b, i, z, y, x) -> X(0): (b, c, z, y, x) of level 0, its channels last in memory."""
        check_multiple(as_vec(image.shape[2:]), self.multiple)
        x = space_to_channels(image.to(self.exit.weight.dtype), self.stride)
        return self.stem(x.contiguous(memory_format=torch.channels_last_3d))  # type: ignore[no-any-return]

    def ascend(self, level: int, h: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output of a level -> the drive of the next level; there is no memory between them."""
        return relu(self.down[level](F.max_pool3d(h, self.pools[level]))), None

    def descend(self, level: int, h: Tensor, memory: Tensor | None, lower: Tensor) -> tuple[Tensor, Tensor | None]:
        """State of level + 1 -> the input to ``level``; there is no memory between them."""
        top = self.up[level](h).contiguous(memory_format=torch.channels_last_3d)  # in float32 it comes with them first
        return relu(top), None

    def together(self, lower: Tensor, new: Tensor) -> Tensor:
        """The mean of a state and of what comes down, which keeps its scale over any number of steps."""
        return torch.lerp(lower, new, 0.5)

    def read(self, state: State, x: Tensor, image: Tensor) -> Tensor:
        """H(0) and X(0) -> logits (b, out_channels, z, y, x)."""
        seen = self.readout(torch.cat([state[0], x], dim=1))  # (b, c, z, y, x) of level 0
        return channels_to_space(self.exit(seen), self.stride)

    def narrowed(self, channels: int) -> PlainGamma:
        """A copy that computes only the first channels; a run writes three of those that were trained."""
        result = copy.deepcopy(self)
        result.exit = first_outputs(self.exit, channels * (self.exit.out_channels // self.out_channels))
        result.out_channels = channels
        return result
