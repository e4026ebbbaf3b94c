"""Arrays in, arrays out: a run in a temporary folder, whose results are read and whose folder is then deleted.

The stages are those of ``petaseg run``, so the bytes are the same, whatever the chunks and the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from petaseg.checks import Array, checked_affinities, checked_image, checked_mask, resolution_of
from petaseg.tables import as_overrides, forget_opened, run_of
from pipeline.errors import ConfigError
from pipeline.geometry import Triple

if TYPE_CHECKING:
    from workflows.session import Session

Resolution = tuple[float, float, float]


def segment(
    image: Array,
    *,
    resolution: Sequence[float] | None = None,
    model: str | None = None,
    mask: Array | None = None,
    threshold: float | None = None,
    progress: bool = False,
    **tables: Any,
) -> np.ndarray:
    """Neurons of an image, with a trained network.

    Args:
        image: uint8 (z, y, x), or (3, z, y, x) for a model of images in colours; other types if all values are whole
            numbers from 0 to 255. An open volume is read whole.
        resolution: nanometres per voxel, z, y, x; not needed for a volume, which states its own.
        model: a bundled model (``petaseg models`` lists them) or the path of a model card; ``fib25`` if left out.
        mask: (z, y, x), 0 or False outside the tissue, where labels are 0.
        threshold: regions whose score is at least this are one neuron; the model's own if left out.
        progress: show the chunks that are done.
        tables: other tables and keys of a run file (docs/configuration.md), such as ``execution={"workers": 4}``.

    Returns labels, uint64 (z, y, x), 0 = none: the bytes that ``petaseg run`` writes for this image.
    Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` for what does not fit, before anything is computed.
    """
    size, voxels = resolution_of(image, resolution), checked_image(image, _image_channels(model))
    sources = {"image": voxels, **_mask(mask, voxels.shape[-3:])}
    more = {"inference.model": model, "segmentation.threshold": threshold}
    with _array_run(sources, size, more, tables, progress) as session:
        return _labels(session)


def agglomerate(
    affinities: Array,
    *,
    resolution: Sequence[float] | None = None,
    offsets: Sequence[Triple] | None = None,
    mask: Array | None = None,
    threshold: float | None = None,
    progress: bool = False,
    **tables: Any,
) -> np.ndarray:
    """Neurons of affinities, from any network.

    Args:
        affinities: (3, z, y, x), channels first: uint8 with 255 = surely one object, or floating point from 0 to 1.
        resolution: nanometres per voxel, z, y, x; not needed for a volume, which states its own.
        offsets: channel k at voxel v is the affinity between v and v + offsets[k], the nearest neighbour along each
            axis once; (-1, 0, 0), (0, -1, 0), (0, 0, -1) if left out.
        mask: (z, y, x), 0 or False outside the tissue, where labels are 0.
        threshold: regions whose score is at least this are one neuron; 0.5 if left out.
        progress: show the chunks that are done.
        tables: other tables and keys of a run file, such as ``agglomeration={"linkage": "quantile"}``.

    Returns labels, uint64 (z, y, x), 0 = none. Raises ``ConfigError`` or ``VolumeError`` for what does not fit.
    """
    size = resolution_of(affinities, resolution)
    values = checked_affinities(affinities, 3 if offsets is None else len(offsets))
    sources = {"affinities": values, **_mask(mask, values.shape[1:])}
    places = None if offsets is None else [list(map(int, offset)) for offset in offsets]
    more = {"input.affinity_offsets": places, "segmentation.threshold": threshold}
    with _array_run(sources, size, more, tables, progress) as session:
        return _labels(session)


def predict(
    image: Array,
    model: str | None = None,
    *,
    resolution: Sequence[float] | None = None,
    progress: bool = False,
    **tables: Any,
) -> np.ndarray:
    """The affinities that a network predicts for an image; the arguments are those of ``segment``.

    Returns uint8 (3, z, y, x): channel k at voxel v is the affinity between v and its neighbour before it along axis k,
    255 = surely one object. ``agglomerate`` takes them as they are. Of a model without affinities it returns the
    membranes, uint8 (z, y, x).
    """
    voxels, size = checked_image(image, _image_channels(model)), resolution_of(image, resolution)
    sources = {"image": voxels}
    with _array_run(sources, size, {"inference.model": model}, tables, progress) as session:
        from pipeline.stages.blend_heads import BlendHeads

        for name in (*BlendHeads.reads, BlendHeads.name):
            session.run_stage(name)
        return _read(session, session.run.setup.source)


@contextmanager
def _array_run(
    sources: Mapping[str, np.ndarray],
    resolution: Resolution,
    more: Mapping[str, Any],
    tables: Mapping[str, Any],
    progress: bool,
) -> Iterator[Session]:
    """A session of a run on arrays; its folder is deleted at the end.

    more: keys of the run file by ``table.key``; None leaves the default.
    """
    from petaseg.sessions import driving

    if "run_directory" in tables:
        raise ConfigError(
            f"run_directory is {tables['run_directory']!r}; arrays are segmented in a temporary folder: for a run that "
            "stays, write the image to a volume (petaseg.create) and call petaseg.run"
        )
    named = [text for key, value in more.items() if value is not None for text in as_overrides({key: value})]
    with TemporaryDirectory(prefix="petaseg-") as folder:
        places = {name: _saved(Path(folder) / f"{name}.npy", array, resolution) for name, array in sources.items()}
        data = {"run_directory": f"{folder}/run", "input": places}
        try:
            with driving(run_of(data, [*named, *as_overrides(tables)]), progress=progress) as session:
                yield session
        finally:
            forget_opened()


def _labels(session: Session) -> np.ndarray:
    from petaseg.sessions import finish

    finish(session)
    return _read(session, "labels")


def _read(session: Session, name: str) -> np.ndarray:
    from pipeline.volumes import open_volume

    return np.asarray(open_volume(session.run.layout.volume_url(name)))


def _image_channels(model: str | None) -> int:
    """Channels of the image that a model takes, or the one that is used if none is named."""
    from pipeline.config.run_file import Inference
    from pipeline.models.spec import load_card

    return load_card(model or Inference().model).image_channels


def _mask(mask: Array | None, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {} if mask is None else {"mask": checked_mask(mask, shape)}


def _saved(path: Path, array: np.ndarray, resolution: Resolution) -> str:
    """Store an array as a file that a run can read without copying it; returns its name as a volume."""
    np.save(path, array)
    axes = "czyx" if array.ndim == 4 else "zyx"
    return f"{path}#resolution={','.join(map(repr, resolution))}&axes={axes}"
