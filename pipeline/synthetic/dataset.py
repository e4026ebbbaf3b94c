"""Write a made-up data set: volumes, settings, facts about each sample, and a picture to look at.

    <output>/image.zarr, target.zarr      samples stacked along z, for generators of pictures
    <output>/image-0000.zarr, ...         a volume for each sample, for generators of volumes
    <output>/parameters.yaml              kind, count, seed, version and every setting
    <output>/samples.jsonl                one line for each sample: its index and what was drawn at random
    <output>/contact_sheet.png            the first samples

The data set is written beside the output and moved there at the end, so it is complete or missing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import __version__
from pipeline.config.base import Table
from pipeline.config.reading import apply_overrides, parse_config
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError, StorageError
from pipeline.geometry import BoundingBox, Vec
from pipeline.synthetic.contact_sheet import SHOWN, contact_sheet
from pipeline.synthetic.kinds import Kind, find_kind
from pipeline.synthetic.sample import Sample
from pipeline.volumes import create_volume
from pipeline.volumes.base import Volume, VolumeSpec

Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all samples."""
PAUSES = (0.1, 0.5, 0.0)
"""Seconds to wait after each try to remove the folder of an interrupted data set."""
LARGEST_CHUNK = 512
MOST_SAMPLES = 10_000_000
"""Each sample is a stored chunk, or two volumes."""


@dataclass(frozen=True)
class SynthesisReport:
    """The data set that was written."""

    kind: str
    folder: Path
    count: int
    volumes: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.volumes[:4]) + (", ..." if len(self.volumes) > 4 else "")
        return f"wrote {self.count} samples ({self.kind}) to {self.folder}: {shown}; look at contact_sheet.png"


def synthesize(
    kind: str,
    output: str | Path,
    *,
    count: int,
    seed: int = 0,
    overrides: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> SynthesisReport:
    """Make samples 0 to ``count`` - 1 of a seed and write them.

    kind: a name in ``pipeline.synthetic.KINDS``.
    output: a folder that does not exist, or is empty.
    overrides: ``key=value`` texts for the generator's settings, the value in YAML.

    Raises ``ConfigError`` for settings out of range, and for a folder that is not empty; ``StorageError`` if the folder
    cannot be written.
    """
    generator, folder = find_kind(kind), Path(output)
    config = settings_of(generator, overrides)
    _check(folder, count, seed)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}; choose a folder that may be written") from error
    try:
        names = _write(partial, kind, generator, config, count, seed, on_progress)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}; nothing was written") from error
    finally:
        _remove(partial)
    return SynthesisReport(kind, folder, count, names)


def _remove(partial: Path) -> None:
    """Remove a folder if it exists; it tries several times, since threads may still write after an interruption."""
    for pause in PAUSES if partial.exists() else ():
        shutil.rmtree(partial, ignore_errors=True)
        time.sleep(pause)


def settings_of(generator: Kind, overrides: Sequence[str] = ()) -> Table:
    """The generator's settings: its defaults, changed by the overrides."""
    defaults = generator.settings().model_dump(mode="json")
    return parse_config(apply_overrides(defaults, overrides), generator.settings, source="--set")


def _check(folder: Path, count: int, seed: int) -> None:
    if not 1 <= count <= MOST_SAMPLES or seed < 0:
        raise ConfigError(
            f"count is {count} and seed is {seed}; make 1 to {MOST_SAMPLES:,} samples, of a seed of at least 0 (for "
            "more, make several data sets of different seeds)"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; nothing is replaced: name another folder, or delete it")


def _write(
    folder: Path, kind: str, generator: Kind, config: Table, count: int, seed: int, on_progress: Progress | None
) -> tuple[str, ...]:
    """Write the whole data set into an empty folder; returns the names of the volumes."""
    write = _Volumes(folder, generator, count) if generator.target == "labels" else _Stack(folder, generator, count)
    pairs, notes = [], []
    with (folder / "samples.jsonl").open("w") as facts:
        for index, sample in enumerate(_samples(generator, config, count, seed)):
            image = generator.as_uint8(sample.image)
            write(index, image, sample.target, config)
            facts.write(json.dumps({"index": index, **sample.more}) + "\n")
            if index < SHOWN:
                pairs.append((image, sample.target))
                notes.append(_note(sample))
            if on_progress:
                on_progress(index + 1, count)
    contact_sheet(folder / "contact_sheet.png", pairs, notes, f"{kind}, seed {seed}")
    settings = {"kind": kind, "count": count, "seed": seed, "petaseg": __version__}
    text = dump_yaml({**settings, "parameters": config.model_dump(mode="json")})
    (folder / "parameters.yaml").write_text(text)
    return tuple(sorted(path.name for path in folder.glob("*.zarr")))


def _samples(generator: Kind, config: Table, count: int, seed: int) -> Iterator[Sample]:
    for index in range(count):
        yield generator.make(index, seed=seed, config=config)


def _note(sample: Sample) -> str:
    """The first facts of a sample, as a short line for people."""
    facts = [f"{name} {value:.4g}" for name, value in sample.more.items() if isinstance(value, int | float)]
    return ", ".join(facts[:2])


class _Stack:
    """One volume of images and one of targets, in which each section is a sample."""

    def __init__(self, folder: Path, generator: Kind, count: int) -> None:
        self.folder, self.vector, self.count = folder, generator.target == "orientation", count
        self.volumes: list[Volume] = []

    def __call__(self, index: int, image: np.ndarray, target: np.ndarray, config: Table) -> None:
        """Store one sample."""
        parts = (image[None], target[:, None, None, None] if self.vector else target[None])
        if not self.volumes:
            self.volumes = [self._create(name, part) for name, part in zip(("image", "target"), parts, strict=True)]
        for volume, part in zip(self.volumes, parts, strict=True):
            volume.write(BoundingBox.from_shape(part.shape[-3:], (index, 0, 0)), part)

    def _create(self, name: str, part: np.ndarray) -> Volume:
        shape = Vec(self.count, *part.shape[-2:])
        chunk = shape.minimum((1, LARGEST_CHUNK, LARGEST_CHUNK))
        channels = len(part) if part.ndim == 4 else None
        spec = VolumeSpec(BoundingBox.from_shape(shape), (1.0, 1.0, 1.0), part.dtype, channels, chunk)
        return create_volume(str(self.folder / f"{name}.zarr"), spec)


class _Volumes:
    """A separate volume for every image and every target."""

    def __init__(self, folder: Path, generator: Kind, count: int) -> None:
        self.folder = folder

    def __call__(self, index: int, image: np.ndarray, target: np.ndarray, config: Table) -> None:
        """Store one sample."""
        nm = tuple(map(float, config.model_dump()["resolution_nm"]))
        for name, part in (("image", image), ("target", target)):
            spec = VolumeSpec(BoundingBox.from_shape(part.shape), nm, part.dtype)  # type: ignore[arg-type]
            create_volume(str(self.folder / f"{name}-{index:04d}.zarr"), spec).write(spec.bounds, part)
