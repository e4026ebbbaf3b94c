"""How the network is run, and which of these options can change a byte of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.run_file import Inference
from pipeline.errors import ConfigError
from pipeline.inference.gpu import gpu_present
from pipeline.models.heads import AFFINITIES, NEAREST, WITH_EXTREMES

DEFAULTS = Inference()

FASTEST = "fastest"
"""The precision of a run whose first driver has yet to measure which is faster: ``pipeline/runs/precision.py``."""

AUGMENTATIONS = ("none", "flips", "flips+transpose", "flips+permutations")
"""1, 8, 16 and 48 variants; the last is for isotropic voxels and cubic patches."""


@dataclass(frozen=True)
class PredictOptions:
    """Options of a predictor, which are sent to workers. Torch is loaded only when the device is resolved."""

    batch_size: int = DEFAULTS.batch_size
    """Patches per forward pass on a GPU; the last batch is padded. A CPU runs patch by patch in any case."""
    device: Literal["auto", "cpu", "cuda"] = DEFAULTS.device
    """The device on which the network runs; auto takes a GPU if there is one."""
    gpu: str | None = DEFAULTS.gpu
    """Name of the workers' GPU, for a driver that has none itself; workers compare it with theirs."""
    precision: Literal["float32", "bfloat16", "fastest"] = "float32"
    """bfloat16: the whole network if it says that it may be, else by autocast. float32 is plain, without TF32.
    fastest: not measured yet; a predictor refuses it.
    """
    compile: bool = DEFAULTS.compile
    """Compile the network (torch.compile)."""
    channels_last: bool = True
    """Keep activations with the channels last, which convolutions prefer on both kinds of device."""
    threads: int = DEFAULTS.threads
    """CPU threads of one forward pass."""
    deterministic: bool = True
    """On a GPU, deterministic algorithms only; off, results may differ from run to run in the last bit."""
    augmentation: str = DEFAULTS.augmentation
    """Test-time augmentation: none, flips, flips+transpose, flips+permutations."""
    augmentation_rule: str = DEFAULTS.augmentation_rule
    """How its copies are combined: mean, or min for heads that are low or high at borders, or mean+extremes."""
    heads: tuple[str, ...] = (AFFINITIES,)
    """The heads of the network that are written."""
    channels: int = NEAREST
    """The number of affinities that are written, from the first; the first three are the nearest neighbours.
    """

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"inference {name} is {getattr(self, name)}; it must be at least 1")
        choices = {
            "device": ("auto", "cpu", "cuda"),
            "precision": ("float32", "bfloat16", FASTEST),
            "augmentation": AUGMENTATIONS,
            "augmentation_rule": ("mean", "min", WITH_EXTREMES),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"inference {name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )

    def resolved_device(self) -> Literal["cpu", "cuda"]:
        """The device that the options select, on this machine or on the workers; ``ConfigError`` if it is missing."""
        if self.gpu is not None and self.device != "cpu":
            return "cuda"
        if self.device == "cpu":
            return "cpu"
        present = gpu_present()
        if self.device == "cuda" and not present:
            raise ConfigError(
                "inference device is cuda; torch must find a GPU and finds none: choose auto or cpu, or name the GPU "
                "of the workers in inference.gpu (nvidia-smi -L prints it)"
            )
        return "cuda" if present else "cpu"

    def identity(self, device: Literal["cpu", "cuda"]) -> dict[str, Any]:
        """The options that can change a byte on this kind of device; how machines differ is measured (``probe.py``)."""
        names = [
            "augmentation",
            *(["augmentation_rule"] if self.augmentation != "none" else []),
            "heads",
            "channels",
            "precision",
            "compile",
            "channels_last",
        ]
        names += ["threads"] if device == "cpu" else ["batch_size", "deterministic"]
        return {"device": device, **{name: getattr(self, name) for name in names}}
