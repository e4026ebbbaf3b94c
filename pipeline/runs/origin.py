"""Where an input comes from, and by what it is known: its fingerprint.

An input that a stage of another run writes is known by the fingerprint of that stage, and used only if the stage has
finished every chunk of the region that is needed. Any other volume is known by its extent and 27 blocks of its voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError, VolumeError, counted
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.chain import names_of_volumes
from pipeline.runs.hints import continuation
from pipeline.runs.outline import KEY, RunOutline, StageOutline, read_outline
from pipeline.stages.layout import BESIDE
from pipeline.storage import ObjectStore, parent_of
from pipeline.volumes.axes import DEFAULT
from pipeline.volumes.base import Volume
from pipeline.volumes.formats import VOLUMES, creatable
from pipeline.volumes.location import Location, parse_location
from pipeline.volumes.places import overlap, place_of, real
from pipeline.volumes.presence import require_stored
from pipeline.volumes.sample import sample_blocks

WRITTEN = frozenset(f"{name}.zarr" for name in names_of_volumes())
"""Names, within a run directory, of the volumes that stages write; heads of other programs may add theirs."""


@dataclass(frozen=True)
class Origin:
    """The stage of another run that writes a volume."""

    outline: RunOutline
    stage: StageOutline
    volume: str
    """The name of the volume within the run directory."""

    def require_finished(self, url: str) -> None:
        """Raise ``VolumeError`` unless every chunk of the stage is done under the run's present configuration."""
        done = self.outline.ledger(self.stage).summary().done
        if done < self.stage.total:
            raise VolumeError(
                f"{url} belongs to the run {self.outline.url}, which has finished {done} of "
                f"{counted(self.stage.total, 'chunk')} of {self.stage.name}; only finished volumes are read: "
                f"finish it first with `{self.command}`"
            )

    def require_region(self, volume: Volume, needed: BoundingBox) -> None:
        """Raise ``VolumeError`` unless the run writes every voxel of ``needed``, in the coordinates of ``volume``."""
        grid = self.stage.grids[0]
        shift = volume.spec.bounds.start - grid.bounds.start  # the volume may be opened with #offset
        written = grid.roi.translate(shift)
        if not written.contains(needed):
            raise VolumeError(
                f"{volume.url} belongs to the run {self.outline.url}, which writes {written} of it; this run needs "
                f"{needed}: widen input.start and input.stop there and finish that run, or narrow them here"
            )

    @property
    def command(self) -> str:
        """The command that finishes the run, from any folder."""
        return continuation(self.outline.url, cluster=self.outline.cluster)


def input_fingerprint(volume: Volume, needed: BoundingBox, run_directory: str) -> str:
    """The fingerprint of an input, of which ``needed`` is read by the run in ``run_directory``.

    Raises ``VolumeError`` if another run has not finished it, or if nothing of it is stored; ``ConfigError`` if this
    very run writes it.
    """
    refuse_own_directory(volume.url, run_directory)
    origin = origin_of(volume.url)
    if origin is None:
        require_stored(volume)
        return volume_fingerprint(volume)
    origin.require_finished(volume.url)
    origin.require_region(volume, needed)
    written_by = origin.stage.name, origin.stage.fingerprint, origin.volume
    return fingerprint(*written_by, *_extent(volume), *_other_voxels(volume.url))


def require_finished(url: str) -> None:
    """Raise ``VolumeError`` if a volume belongs to a run that has not finished it."""
    origin = origin_of(url)
    if origin is not None:
        origin.require_finished(url)


def refuse_own_directory(url: str, run_directory: str) -> None:
    """Raise ``ConfigError`` if an input and the run directory overlap: one is, holds or lies in the other."""
    if not parse_location(url).entry.lasting:
        return
    place, own = place_of(url), real(run_directory)
    if how := overlap(place, own):
        raise ConfigError(
            f"the input {url} {how} this run's own directory {run_directory}, where a stage may write over it; a run "
            "reads only what it does not write: choose another run_directory"
        )
    for folder, _ in _places(parse_location(url)):
        if overlap(own, folder) == "lies in" and _holds_zarr(folder):
            raise ConfigError(
                f"run_directory {run_directory} lies in the volume {folder}, to which the input {url} belongs; choose "
                "a run_directory apart from the inputs"
            )


def origin_of(url: str) -> Origin | None:
    """The stage of another run that writes a volume; ``None`` if it is no run's.

    Raises ``VolumeError`` if the volume lies in a run directory, but no stage of that run's present configuration
    writes it any more. Behind a web server nobody can list a run's records, so there every volume is a plain one.
    """
    location = parse_location(url)
    if location.format not in (None, *creatable()) or location.base.startswith(("http://", "https://")):
        return None
    for folder, name in _places(location):
        outline = read_outline(ObjectStore(folder)) if name.endswith(".zarr") else None
        if outline is not None and (name in WRITTEN or name in outline.volumes):
            return _origin(url, outline, name.removesuffix(".zarr"))
        if (outline := _beside(folder, name)) is not None:
            stage = outline.stages[-1]  # the one that writes its labels
            return Origin(outline, stage, stage.volumes[0])
    return None


def _beside(folder: str, name: str) -> RunOutline | None:
    """The outline of a second segmentation whose labels are the volume of this name in a run directory."""
    stem, is_zarr, _ = name.rpartition(".zarr")
    return read_outline(ObjectStore(f"{folder}/{BESIDE}/{stem}")) if is_zarr and stem else None


def volume_fingerprint(volume: Volume) -> str:
    """Digest of a volume's extent, type, unit and of 27 blocks of voxels spread over it, wherever it is stored.

    It notices another dataset and most changes of one; an edit between the blocks is not noticed, and needs a new
    run directory.
    """
    return fingerprint(list(_extent(volume)), [fingerprint(block.tobytes().hex()) for block in sample_blocks(volume)])


def _extent(volume: Volume) -> tuple[Vec, Vec, str, tuple[float, float, float], int | None]:
    spec = volume.spec
    return spec.bounds.start, spec.bounds.stop, str(spec.dtype), spec.resolution_nm, spec.channels


def _other_voxels(url: str) -> tuple[str, ...]:
    """What a URL says about the voxels beside their place: an order ``#axes=`` that no stage writes, channel, scale."""
    options = parse_location(url).options
    axes = options.get("axes")
    other_axes = () if axes is None or axes in DEFAULT.values() else (axes,)
    return (*other_axes, *(f"{name} {options[name]}" for name in ("channel", "scale") if name in options))


def _origin(url: str, outline: RunOutline, volume: str) -> Origin:
    for stage in outline.stages:
        if volume in stage.volumes:
            return Origin(outline, stage, volume)
    raise VolumeError(
        f"{url} lies in the run directory {outline.url}, but no stage of that run, as it was run last, writes "
        f"{volume} ({KEY} lists them), so nothing tells whether it is complete: run it again with the configuration "
        "that writes it, or copy the volume to another place if it is"
    )


def _places(location: Location) -> Iterator[tuple[str, str]]:
    """The folder that holds the volume, with the volume's name there; then the same of an array within a volume."""
    place = real(location.base)
    for _ in range(2):
        folder = parent_of(place)
        if folder is None:
            return
        yield folder, place.rpartition("/")[2]
        place = folder


def _holds_zarr(folder: str) -> bool:
    store = ObjectStore(folder)
    return any(map(store.exists, VOLUMES["zarr"].markers))
