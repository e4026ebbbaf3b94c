"""With ``inference.precision: fastest`` the first driver of a run measures which precision is faster on its machine.

1. it runs one patch in each, best of three                              measured
2. it records the faster one, unless one is recorded already             pipeline/stages/fastest.py
3. from then on every command, worker and driver takes what is recorded  with_recorded

The choice is an option of ``PredictHeads``, so it is in the fingerprint, as if the run file named it. Before it is made
no chunk fits the run: the options say ``fastest``, and a predictor refuses them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from math import prod

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError
from pipeline.inference.gpu import gpu_present
from pipeline.inference.options import FASTEST
from pipeline.stages.fastest import Fastest, Precision, recorded
from pipeline.stages.predict_heads import options_of
from pipeline.stages.setup import Inputs, Network
from pipeline.storage import ObjectStore

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
WORTH = 1.1
"""bfloat16 is taken if it is at least so many times as fast: in float32 more kinds of processors agree."""


def key_of(network: Network) -> str:
    """Digest of what is measured: weights, patch and options. Another model is measured anew."""
    options = options_of(replace(network, fastest=None))
    return fingerprint(network.card.digest, network.patch_shape, options.identity(options.resolved_device()))


def with_recorded(inputs: Inputs, store: ObjectStore) -> Inputs:
    """The inputs of a run with the precision that its directory records, if it is to be measured and has been."""
    if inputs.network is None or inputs.network.config.precision != FASTEST:
        return inputs
    return with_fastest(inputs, recorded(store, key_of(inputs.network)))


def with_fastest(inputs: Inputs, fastest: Fastest | None) -> Inputs:
    """The inputs with this choice; as they are if they have no network."""
    return inputs if inputs.network is None else replace(inputs, network=replace(inputs.network, fastest=fastest))


def measured(network: Network) -> Fastest:
    """Both precisions measured on this machine, and the faster one.

    Raises ``ConfigError`` if the network runs on a GPU that is not on this machine.
    """
    from pipeline.inference.predictor import measure  # it needs torch
    from pipeline.models.spec import load_model

    options = options_of(network)
    on_gpu = options.resolved_device() == "cuda"
    if on_gpu and not gpu_present():
        raise ConfigError(
            "inference.precision is fastest, and this machine has no GPU on which that could be measured; set it to "
            "bfloat16 or float32, or let a machine with the workers' GPU drive the run"
        )
    clock, unit = (time.perf_counter, "voxels a second") if on_gpu else (time.process_time, "voxels a CPU-second")
    rates: dict[str, float] = {
        each: prod(network.patch_shape)
        / measure(
            load_model(network.card), replace(options, precision=each), patch_shape=network.patch_shape, clock=clock
        )
        for each in PRECISIONS
    }
    return Fastest(faster(rates), rates, unit, socket.gethostname())


def faster(rates: Mapping[str, float]) -> Precision:
    """bfloat16 if it is faster by enough, else float32."""
    return "bfloat16" if rates["bfloat16"] >= WORTH * rates["float32"] else "float32"
