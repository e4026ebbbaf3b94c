"""The measurements of ``gpu.py``: each is a generator of rows."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from network import forward, multiply_adds, random_model
from on_device.rows import Row, differing, shown
from on_device.sizes import SIZES
from torch.nn import functional as F

from pipeline.geometry import BoundingBox, Triple, Vec, as_vec
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.inference.probe import probe_patches
from pipeline.inference.runtime import forward_state
from pipeline.models.facts import usual_patch
from pipeline.models.spec import LoadedModel, bundled_names, load_card, load_model, named_arguments

PRECISIONS = ("bfloat16", "float32")
ROUNDS, SECONDS = 5, 2.0
"""A figure is the best of so many rounds, or of as many as begin within so many seconds."""


class Bench:
    """The measurements on one kind of device."""

    def __init__(self, device: str, minutes: float, script: str) -> None:
        self.device, self.sizes, self.script = device, SIZES[device], script
        self.end = time.monotonic() + 60 * minutes
        with forward_state(self.options()):
            pass  # it sets what cuBLAS reads from the environment at its first use, which the peaks are
        self.peak: dict[str, float] = {}
        """Multiply-adds a second by precision: those of the faster of a plain product and a plain convolution."""

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def peaks(self) -> Iterator[Row]:
        """What a plain matrix product and a plain convolution reach."""
        n, channels, side = self.sizes.matrix, self.sizes.channels, self.sizes.side
        for precision in PRECISIONS:
            made = {"device": self.device, "dtype": getattr(torch, precision)}
            matrix, kernel = torch.rand(n, n, **made), torch.rand(channels, channels, 3, 3, 3, **made)
            image = torch.rand(1, channels, side, side, side, **made)
            kernel, image = (each.contiguous(memory_format=torch.channels_last_3d) for each in (kernel, image))
            product = n**3 / self.seconds(self.plain(torch.mm, matrix, matrix))
            convolved = 27 * channels**2 * side**3 / self.seconds(self.plain(F.conv3d, image, kernel, padding=1))
            self.peak[precision] = max(product, convolved)
            yield Row("peak", "", f"{n} x {n} matrices, {precision}", product / 1e9, "GMAC/s")
            convolution = f"convolution 3 x 3 x 3, {channels} channels, {side}^3 voxels, {precision}"
            yield Row("peak", "", convolution, convolved / 1e9, "GMAC/s")

    def plain(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], None]:
        """One operation as it is, by the fastest algorithm."""
        state = self.options(precision="float32", deterministic=False)  # no autocast: the tensors have their precision

        def run() -> None:
            with forward_state(state):
                function(*args, **kwargs)

        return run

    def usual(self, network: str) -> Iterator[Row]:
        """A network with the usual settings: bare, and through the predictor."""
        predictor = self.predictor(network)
        yield self.bare(network, predictor)
        card, image = predictor.card, self.volume(predictor)
        took = self.seconds(lambda: predicted(predictor, image))
        note = f"{prod(self.sizes.along)} patches on {shown(image.shape)}, overlaps of {shown(card.overlap)}"
        yield Row("pipeline", network, described(predictor), image.size / took, "voxels/s", note=note)

    def variants(self, network: str) -> Iterator[tuple[Triple, dict[str, Any]]]:
        """Patch and options of a network, with one changed at a time."""
        first, *patches = self.patches(network)
        for change in ({"precision": "float32"}, {"deterministic": False}, {"channels_last": False}):
            yield first, change
        yield from ((patch, {}) for patch in patches)
        yield from ((first, {"batch_size": size}) for size in self.sizes.batches[1:])

    def variant(self, network: str, patch: Triple, changes: dict[str, Any]) -> Iterator[Row]:
        """A network bare, with these settings."""
        yield self.bare(network, self.predictor(network, patch, **changes))

    def bare(self, network: str, predictor: Predictor) -> Row:
        """Full batches through the network alone, with the share of the peak in this precision."""
        shape = predictor.card.patch_shape
        rate = predictor.batch_size * prod(shape) / self.seconds(forward(predictor))
        kmac = multiply_adds(predictor.card, predictor.channels, shape) / prod(shape) / 1000
        share = rate * kmac * 1000 / self.peak[predictor.options.precision]
        return Row("bare", network, described(predictor), rate, "voxels/s", share, f"{kmac:.0f} kMAC/voxel")

    def bytes(self, network: str) -> Iterator[Row]:
        """How many results differ from the first: repeats, another process, other batch sizes."""
        first, sizes = self.digest(network), self.sizes.batches
        again = [self.digest(network) for _ in range(2)]
        yield differing("repeats", network, "same process", [first, *again], claimed=True)
        others = [self.digest(network, batch_size=size) for size in sizes[1:]]
        yield differing("batch sizes", network, f"batches of {shown(sizes, ', ')}", [first, *others], claimed=False)
        command = [sys.executable, self.script, "--device", self.device, "--digest-of", network]
        told = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, self.left), check=True)
        yield differing("repeats", network, "another process", [first, told.stdout.split()[-1]], claimed=True)

    def digest(self, network: str, **changes: Any) -> str:
        """BLAKE2b over the bytes of the made-up volume, through a predictor of its own."""
        predictor = self.predictor(network, **changes)
        return hashlib.blake2b(predicted(predictor, self.volume(predictor)).tobytes(), digest_size=16).hexdigest()

    def compiled(self, network: str) -> Iterator[Row]:
        """The seconds of torch.compile, and the network after it beside the same without."""
        plain = self.bare(network, self.predictor(network))
        predictor = self.predictor(network, compile=True)
        began = time.perf_counter()
        forward(predictor)()
        yield Row("compilation", network, described(predictor), time.perf_counter() - began, "s")
        found = self.bare(network, predictor)
        yield replace(found, note=f"{(found.value or 0) / (plain.value or 1):.2f} times as fast as without")

    def training(self, network: str) -> Iterator[Row]:
        """A short training on the last of the patches."""
        from on_device.training import trained  # it loads Lightning

        yield from trained(network, self.patches(network)[-1], self.device, self.sizes)

    def seconds(self, run: Callable[[], object]) -> float:
        """The seconds of the best round, after one that warms up."""
        self._timed(run)
        found = [self._timed(run)]
        while len(found) < ROUNDS and sum(found) < min(SECONDS, self.left):
            found.append(self._timed(run))
        return min(found)

    def _timed(self, run: Callable[[], object]) -> float:
        """Wall-clock time on a GPU, CPU time on a CPU."""
        clock = time.perf_counter if self.device == "cuda" else time.process_time
        began = clock()
        run()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return clock() - began

    def options(self, **changes: Any) -> PredictOptions:
        """The options of a run on a GPU, with these changes."""
        usual: dict[str, Any] = {"precision": PRECISIONS[0], "batch_size": self.sizes.batches[0]}
        return PredictOptions(device=self.device, **{**usual, **changes})  # type: ignore[arg-type]

    def predictor(self, network: str, patch: Triple | None = None, **changes: Any) -> Predictor:
        """A network on the device; with the usual patch and options if no others are given."""
        return Predictor(model_of(network, patch or self.patches(network)[0]), self.options(**changes))

    def patches(self, network: str) -> tuple[Triple, ...]:
        """The patches on which a network is measured."""
        if network in bundled_names():
            return self.sizes.cubes
        architecture, _, size = network.partition("/")
        depth, height, _ = usual_patch(architecture, named_arguments(architecture, size))
        return self.sizes.cubes if depth == height else self.sizes.slabs

    def volume(self, predictor: Predictor) -> np.ndarray:
        """A made-up volume of as many patches as the sizes say, (z, y, x) uint8."""
        patch, stride = predictor.card.patch_shape, predictor.card.patch_shape - predictor.card.overlap
        return made_up(patch + stride * (as_vec(self.sizes.along) - 1))


@cache
def made_up(shape: Vec) -> np.ndarray:
    """A texture that is the same on every machine, (z, y, x) uint8."""
    return probe_patches(1, shape)[0]


@cache
def model_of(network: str, patch: Triple) -> LoadedModel:
    """A bundled model, or a named size with random weights, on patches of this shape that overlap by a quarter."""
    if network not in bundled_names():
        return random_model(network, patch)
    shape = as_vec(patch)
    return load_model(load_card(network).model_copy(update={"patch_shape": shape, "overlap": shape // 4}))


def predicted(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """The heads of a volume as one chunk, (channels, z, y, x) uint8."""
    bounds = BoundingBox.from_shape(as_vec(image.shape))
    lattice = PatchLattice(bounds, predictor.card.patch_shape, predictor.card.overlap)
    return predictor.predict(image, core=bounds, lattice=lattice)[0]


def described(predictor: Predictor) -> str:
    """Patch, batch and options in words."""
    options = predictor.options
    words = [f"{predictor.batch_size} x {shown(predictor.card.patch_shape)}", options.precision]
    words += ["compiled"] * options.compile + ["channels first"] * (not options.channels_last)
    return ", ".join(words + ["not deterministic"] * (not options.deterministic))
