"""The 3D gamma-Net: recurrent cortical circuits at several scales, for affinities.

After Linsley, Kim, Ashok and Serre 2020 (ICLR, "Recurrent neural circuits for contour detection"; SI equations 2
and 3), carried to three dimensions with anisotropic kernels, and with affinities as output (Lee et al. 2017,
arXiv:1706.00120).

    image -> stem -> X(0)
    T times:   up the hierarchy     H(l) = fGRU(X = B(l), H = H(l)),   B(l+1) = MGU(pool H(l))
               down again           H(l) = fGRU(X = H(l), H = MGU(unpool H(l+1))) + H(l)
    readout of H(0) -> logits, one channel an offset

Where paper and published code differ, or say nothing: gates' biases come after the norm (before an instance norm they
would have no effect); Chronos signs are those that start the gate slow; X is rectified; H[0] is the first drive;
kernels are symmetric by parametrisation (W = (V + V^T) / 2), so they stay so under any optimiser.

Shapes: b = batch, c = channels of a level, k = kernel; z, y, x are those of the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError

Vec = tuple[int, int, int]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "widths": (24, 32, 48, 64),
        "horizontal": ((3, 3, 3),) * 4,
        "pools": ((2, 2, 2),) * 3,
        "stride": (2, 2, 2),
        "steps": 3,
    },
    "base": {
        "widths": (24, 28, 36, 48, 64),
        "horizontal": ((1, 7, 7), (3, 5, 5), (3, 5, 5), (3, 3, 3), (3, 3, 3)),
        "pools": ((1, 2, 2),) * 4,
        "stem": (1, 3, 3),
        "down": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        "up": ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        "local_gate": (1, 3, 3),
        "gate_bias": True,
        "readout": (1, 5, 5),
        "readout_sees_image": False,
        "steps": 8,
    },
}
"""Arguments of named sizes: tiny for a CPU and isotropic voxels, base (the paper's parts) for a GPU and thick sections.

tiny leaves out the convolutions on the way up, and its readout sees the image: cheaper, and as good on small volumes.
"""

Arguments = dict[str, Any]


class Norm(nn.Module):
    """nu + delta (.) normalised(r), with one gain delta and one bias nu a channel; always computed in float32.

    ``instance``: over the voxels of a patch (the paper's). ``rms``: over the channels of a voxel, so that a patch's
    result does not depend on its extent.
    """

    def __init__(self, channels: int, kind: str, gain: float) -> None:
        super().__init__()
        if kind not in ("instance", "rms"):
            raise ModelError(f"norm is {kind!r}; it must be 'instance' or 'rms'")
        self.kind = kind
        self.gain = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, r: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape, float32."""
        r = r.float()
        if self.kind == "instance":
            centred = r - r.mean((2, 3, 4), keepdim=True)
            r = centred * torch.rsqrt(centred.square().mean((2, 3, 4), keepdim=True) + 1e-5)
        else:
            r = r * torch.rsqrt(r.square().mean(1, keepdim=True) + 1e-3)
        return r * per_channel(self.gain) + per_channel(self.bias)


class SymmetricConv(nn.Module):
    """Convolution c -> c without bias whose kernel is symmetric in its channels.

    ``channel``: W[d, i, j] = W[d, j, i] (the paper). ``adjoint``: W[d, i, j] = W[-d, j, i], which makes the
    convolution a symmetric operator with a real spectrum. ``none``: no symmetry.
    """

    def __init__(self, channels: int, kernel: Vec, symmetry: str) -> None:
        super().__init__()
        if symmetry not in ("channel", "adjoint", "none"):
            raise ModelError(f"symmetry is {symmetry!r}; it must be 'channel', 'adjoint' or 'none'")
        self.symmetry = symmetry
        self.padding = half(kernel)
        self.free = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels, *kernel)))

    def kernel(self) -> Tensor:
        """W = (V + V^T) / 2: (c, c, kz, ky, kx)."""
        if self.symmetry == "none":
            return self.free
        transposed = self.free.transpose(0, 1)
        if self.symmetry == "adjoint":
            transposed = transposed.flip(2, 3, 4)
        return (self.free + transposed) / 2

    def forward(self, r: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape."""
        return F.conv3d(r, self.kernel().to(r.dtype), padding=self.padding)


class FGRU(nn.Module):
    """Feedback gated recurrent unit (SI equation 3): inhibition and excitation by two gated convolutions."""

    def __init__(
        self,
        channels: int,
        kernel: Vec,
        norm: str,
        symmetry: str,
        steps: int,
        local: Vec = (3, 3, 3),
        gate_bias: bool = False,
    ) -> None:
        super().__init__()
        self.global_gate = nn.Conv3d(channels, channels, 1, bias=gate_bias)  # U_IG
        self.local_gate = nn.Conv3d(channels, 1, local, padding=half(local), bias=gate_bias)  # U_IS
        self.excitation_gate = nn.Conv3d(channels, channels, 1, bias=False)  # U_E
        self.inhibition = SymmetricConv(channels, kernel, symmetry)  # W_I
        self.excitation = SymmetricConv(channels, kernel, symmetry)  # W_E
        self.norms = nn.ModuleList(Norm(channels, norm, gain=0.1) for _ in range(4))
        chronos = torch.empty(channels).uniform_(1, max(steps - 1, 1) + 1e-3).log()
        self.bias_inhibition = nn.Parameter(chronos.clone())  # b_I = +log U(1, T - 1)
        self.bias_excitation = nn.Parameter(-chronos)  # b_E = -log U(1, T - 1): the state starts slow
        self.alpha = nn.Parameter(torch.full((channels,), 0.1))
        self.mu = nn.Parameter(torch.zeros(channels))
        self.kappa = nn.Parameter(torch.zeros(channels))
        self.omega = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Drive X and state H -> new state H', all (b, c, z, y, x)."""
        alpha, mu, kappa, omega = map(per_channel, (self.alpha, self.mu, self.kappa, self.omega))
        gate = self.global_gate(h) * self.local_gate(h)  # G_IG . G_IS: (b, c, ...) x (b, 1, ...)
        g_i = torch.sigmoid(self.norms[0](gate) + per_channel(self.bias_inhibition))
        c_i = self.norms[1](self.inhibition(h * g_i))  # C_I
        z = F.relu(F.relu(x) - F.relu((alpha * h + mu) * c_i))  # Z
        g_e = torch.sigmoid(self.norms[2](self.excitation_gate(z)) + per_channel(self.bias_excitation))
        c_e = self.norms[3](self.excitation(z))  # C_E
        candidate = F.relu(kappa * (c_e + z) + omega * c_e * z)  # H~
        return (1 - g_e) * h + g_e * candidate  # H'


class MGU(nn.Module):
    """Minimal gated unit between two levels (SI equation 2): a convolution whose output is remembered."""

    def __init__(self, convolution: nn.Module, channels: int, norm: str) -> None:
        super().__init__()
        self.convolution = convolution
        self.forget = nn.Conv3d(channels, channels, 1)  # W_F, b_F
        self.candidate = nn.Conv3d(channels, channels, 1)  # W_H, b_H
        nn.init.constant_(self.forget.bias, 1.0)  # type: ignore[arg-type]
        self.norm = Norm(channels, norm, gain=1.0)

    def forward(self, x: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        """Input of the other level and memory B -> what goes on, and B'; both (b, c, z, y, x) of the new level."""
        a = self.convolution(x)  # A
        b = torch.zeros_like(a) if b is None else b
        f = torch.sigmoid(a + self.forget(b))  # F
        b = f * b + (1 - f) * F.elu(a + self.candidate(f * b))  # B'
        return self.norm(b), b


class GammaNet3D(nn.Module):
    """The network; its arguments stand in a model card.

    widths: channels of each level.              horizontal: kernel of the fGRU at each level.
    pools: downsampling between levels.          steps: T.
    stride: the levels work at a resolution lower by this factor; space becomes channels and back, nothing is dropped.
    stem, down: kernels of the two convolutions before level 0, and of the one before each level above it.
    up: kernels of the convolutions after each transposed one, finest first; None leaves them out.
    local_gate, gate_bias: kernel of U_IS, and whether U_IG and U_IS have biases.
    readout, readout_sees_image: kernel of the last convolution, which sees H(0) and, if told so, X(0) beside it.
    out_channels: affinities.                    norm, symmetry: see ``Norm`` and ``SymmetricConv``.
    """

    def __init__(
        self,
        widths: Sequence[int],
        horizontal: Sequence[Vec],
        pools: Sequence[Vec],
        stride: Vec = (1, 1, 1),
        stem: Vec = (3, 3, 3),
        down: Sequence[Vec] | None = None,
        up: Sequence[Vec] | None = None,
        local_gate: Vec = (3, 3, 3),
        gate_bias: bool = False,
        readout: Vec = (3, 3, 3),
        readout_sees_image: bool = True,
        steps: int = 4,
        out_channels: int = 12,
        norm: str = "instance",
        symmetry: str = "channel",
    ) -> None:
        super().__init__()
        gaps = len(widths) - 1
        down = [(3, 3, 3)] * gaps if down is None else down
        lengths = [len(widths), len(horizontal), len(pools) + 1, len(down) + 1, gaps + 1 if up is None else len(up) + 1]
        if len(set(lengths)) > 1 or steps < 1:
            raise ModelError(
                f"{len(widths)} widths, {len(horizontal)} horizontal kernels, {len(pools)} pools, {len(down)} kernels "
                f"down and {gaps if up is None else len(up)} up, {steps} steps; each level needs a horizontal kernel, "
                "each gap between levels a pool and kernels, and at least one step is needed"
            )
        self.stride, self.steps, self.out_channels = as_vec(stride), steps, out_channels
        self.pools = [as_vec(pool) for pool in pools]
        self.readout_sees_image = readout_sees_image
        inside = self.stride[0] * self.stride[1] * self.stride[2]
        first, unit = widths[0], (norm, symmetry, steps, as_vec(local_gate), gate_bias)
        self.stem = nn.Sequential(
            same_conv(inside, first, stem), nn.ELU(), same_conv(first, first, stem), nn.ELU(), Norm(first, norm, 1.0)
        )
        self.horizontal = nn.ModuleList(FGRU(c, as_vec(k), *unit) for c, k in zip(widths, horizontal, strict=True))
        self.down = nn.ModuleList(
            MGU(same_conv(a, b, k), b, norm) for (a, b), k in zip(pairwise(widths), down, strict=True)
        )
        refine = [None] * gaps if up is None else up
        self.up = nn.ModuleList(
            MGU(unpool(b, a, pool, k, norm), a, norm)
            for (a, b), pool, k in zip(pairwise(widths), self.pools, refine, strict=True)
        )
        self.top_down = nn.ModuleList(FGRU(c, (1, 1, 1), *unit) for c in widths[:-1])
        self.readout_norm = Norm(first, norm, gain=1.0)
        self.readout = same_conv(first * (1 + readout_sees_image), out_channels * inside, readout)

    @property
    def multiple(self) -> Vec:
        """A patch must be a multiple of this along z, y, x."""
        result = list(self.stride)
        for pool in self.pools:
            result = [a * b for a, b in zip(result, pool, strict=True)]
        return as_vec(result)

    def forward(self, image: Tensor, every_step: bool = False) -> Tensor | list[Tensor]:
        """Image (b, 1, z, y, x) -> logits (b, out_channels, z, y, x), or a list of them, one a step."""
        if any(n % m for n, m in zip(image.shape[2:], self.multiple, strict=True)):
            raise ModelError(
                f"the patch is {tuple(image.shape[2:])}; "
                f"each side must be a multiple of {self.multiple}, since the levels halve it"
            )
        x = self.stem(space_to_channels(image, self.stride))  # (b, c, z, y, x) of level 0
        levels = len(self.horizontal)
        h: list[Tensor | None] = [None] * levels
        below: list[Tensor | None] = [None] * levels
        above: list[Tensor | None] = [None] * levels
        outputs = []
        for step in range(self.steps):
            self._bottom_up(x, h, below)
            self._top_down(h, above)
            if every_step or step == self.steps - 1:
                outputs.append(self._read(h[0], x))  # type: ignore[arg-type]
        return outputs if every_step else outputs[-1]

    def _bottom_up(self, x: Tensor, h: list[Tensor | None], memory: list[Tensor | None]) -> None:
        drive = x
        for level, cell in enumerate(self.horizontal):
            state = h[level]
            h[level] = new = cell(drive, F.relu(drive) if state is None else state)
            if level < len(self.down):
                sent = new + drive if level == 0 else new  # the image itself stays visible to what is above
                pooled = F.max_pool3d(sent, self.pools[level])
                drive, memory[level] = self.down[level](pooled, memory[level])

    def _top_down(self, h: list[Tensor | None], memory: list[Tensor | None]) -> None:
        for level in reversed(range(len(self.up))):
            top, memory[level] = self.up[level](h[level + 1], memory[level])
            h[level] = self.top_down[level](h[level], top) + h[level]

    def _read(self, h: Tensor, x: Tensor) -> Tensor:
        seen = self.readout_norm(h)
        if self.readout_sees_image:
            seen = torch.cat([seen, x], dim=1)  # (b, 2 c, z, y, x)
        return channels_to_space(self.readout(seen), self.stride)  # (b, out, Z, Y, X)


def same_conv(inside: int, outside: int, kernel: Sequence[int]) -> nn.Conv3d:
    """A convolution that keeps the shape."""
    kernel = as_vec(kernel)
    return nn.Conv3d(inside, outside, kernel, padding=half(kernel))


def unpool(inside: int, outside: int, pool: Vec, kernel: Sequence[int] | None, norm: str) -> nn.Module:
    """A transposed convolution that undoes a pool; with a kernel, a norm and a convolution follow."""
    transposed = nn.ConvTranspose3d(inside, outside, pool, stride=pool)
    if kernel is None:
        return transposed
    return nn.Sequential(transposed, Norm(outside, norm, gain=1.0), same_conv(outside, outside, kernel))


def space_to_channels(r: Tensor, stride: Vec) -> Tensor:
    """(b, c, z sz, y sy, x sx) -> (b, c sz sy sx, z, y, x)."""
    b, c, z, y, x = r.shape
    sz, sy, sx = stride
    r = r.reshape(b, c, z // sz, sz, y // sy, sy, x // sx, sx).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return r.reshape(b, c * sz * sy * sx, z // sz, y // sy, x // sx)


def channels_to_space(r: Tensor, stride: Vec) -> Tensor:
    """(b, c sz sy sx, z, y, x) -> (b, c, z sz, y sy, x sx): the inverse of ``space_to_channels``."""
    b, c, z, y, x = r.shape
    sz, sy, sx = stride
    r = r.reshape(b, c // (sz * sy * sx), sz, sy, sx, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return r.reshape(b, c // (sz * sy * sx), z * sz, y * sy, x * sx)


def per_channel(p: Tensor) -> Tensor:
    """(c,) -> (1, c, 1, 1, 1)."""
    return p.view(1, -1, 1, 1, 1)


def as_vec(values: Sequence[int]) -> Vec:
    """Three integers; cards hold lists."""
    if len(values) != 3:
        raise ModelError(f"{tuple(values)} has {len(values)} numbers; strides, pools and kernels need three: z, y, x")
    z, y, x = values
    return int(z), int(y), int(x)


def half(kernel: Vec) -> Vec:
    """The padding that keeps the shape under an odd kernel."""
    if any(k % 2 == 0 for k in kernel):
        raise ModelError(f"kernel {kernel} has an even side; kernels need a middle: use odd sides")
    return kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
