"""What a run, or a volume that is none, shows in a viewer: named layers with their places, colours and visibility."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.runs.summary import summarise
from pipeline.stages import opened
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.downsample import DownsampleImage
from pipeline.stages.measure import Measure
from pipeline.stages.write_supervoxels import WriteSupervoxels
from pipeline.storage import ObjectStore
from pipeline.viewing.properties import segment_properties
from pipeline.viewing.served import ServedVolume

Kind = Literal["image", "segmentation"]

GREY = """#uicontrol invlerp contrast(range=[0, 255])
void main() { emitGrayscale(contrast()); }
"""
HEAD = """#uicontrol vec3 colour color(default="%s")
#uicontrol float opacity slider(min=0, max=1, default=0.6)
void main() { float value = toNormalized(getDataValue(0)); emitRGBA(vec4(colour, value * opacity)); }
"""
AFFINITIES = """#uicontrol float opacity slider(min=0, max=1, default=0.6)
void main() {
  vec3 cut = 1.0 - vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)), toNormalized(getDataValue(2)));
  emitRGBA(vec4(cut, max(max(cut.r, cut.g), cut.b) * opacity));
}
"""
"""Red, green and blue where the network cuts along z, y and x."""
COLOURS = ("#00e5ff", "#ffd400", "#ff5cf4", "#7dff5c", "#ff8a3d")
"""Of heads, in their order."""
SHAPES = {"mesh": "meshes", "skeletons": "skeletons"}
"""What the info file of a layer calls the folders of a run with shapes of its segments."""
LARGEST = 10
"""So many of the largest segments are shown in 3D at first."""
LABEL_BYTES = 4
"""Integers of this many bytes or more are labels, unless somebody says otherwise."""


@dataclass(frozen=True)
class Layer:
    """One layer of the viewer."""

    name: str
    url: str
    """The volume, as ``open_volume`` takes it."""
    kind: Kind
    shader: str = ""
    """How an image is coloured (GLSL, as Neuroglancer takes it)."""
    visible: bool = True
    coarser: str = ""
    """Another volume, with coarser levels of this one."""
    folders: Mapping[str, ObjectStore] = field(default_factory=dict)
    """Shapes of its segments as Neuroglancer reads them, by what the info file calls them."""
    properties: Mapping[str, Any] | None = None
    """What is known of its segments, as Neuroglancer takes it."""
    selected: tuple[int, ...] = ()
    """Segments that are shown in 3D at first."""

    @cached_property
    def served(self) -> ServedVolume:
        """The opened volume with its levels."""
        return ServedVolume.open(self.url, self.kind, self.coarser)


def layers_of_run(run: Run) -> list[Layer]:
    """Image, heads, supervoxels, the result and the ground truth of a run, as far as they are stored."""
    layers = [] if run.inputs.image_url is None else [_image_layer(run, run.inputs.image_url)]
    layers += [_head_layer(run, name, number) for number, name in enumerate(run.inputs.heads)]
    if run.has_stage(WriteSupervoxels.name):
        url = run.layout.volume_url("supervoxels")
        layers.append(Layer("supervoxels", url, "segmentation", visible=False))
    layers.append(_result_layer(run))
    if run.inputs.truth is not None and run.inputs.truth.labels is not None:
        layers.append(Layer("truth", run.inputs.truth.labels, "segmentation", visible=False))
    return [layer for layer in layers if _is_there(run, layer)]


def _result_layer(run: Run) -> Layer:
    """The labels or classes with what the run has made of them, and the largest selected; or the mask."""
    name = run.beside or run.kind.volume
    if run.kind.name == "mask":
        return Layer(name, run.result_url, "image", HEAD % COLOURS[0])
    folders = {} if run.beside else {key: ObjectStore(f"{run.url}/{place}") for key, place in SHAPES.items()}
    found = {key: store for key, store in folders.items() if store.exists("info")}
    largest = _largest(run) if found else ()
    known = segment_properties(run)
    return Layer(name, run.result_url, "segmentation", folders=found, properties=known, selected=largest)


def _largest(run: Run) -> tuple[int, ...]:
    """The largest segments that have shapes; none before the tables are cut, or given labels measured."""
    counted = run.cut.stage if run.kind.can_be_cut else Measure
    if run.kind.name == "classes" or not run.is_complete(run.stage(counted.name)):
        return ()
    shapes = (table for table in (run.config.meshes, run.config.skeletons) if table is not None)
    smallest = max(
        (table.smallest_voxels for table in shapes), default=0
    )  # a viewer waits for shapes that are not there
    return tuple(label for label, voxels in summarise(run).largest[:LARGEST] if voxels >= smallest)


def _image_layer(run: Run, url: str) -> Layer:
    """The image, with the coarser levels that the run has made of it."""
    levels = run.layout.volume_url("image")
    stages = [stage for stage in run.stages if isinstance(stage, DownsampleImage)]
    made = any(run.is_complete(stage) for stage in stages)
    return Layer("image", url, "image", GREY, coarser=levels if made else "")


def _head_layer(run: Run, name: str, number: int) -> Layer:
    predicted = run.stage(BlendHeads.name) if run.has_stage(BlendHeads.name) else None
    shader = AFFINITIES if name == "affinities" else HEAD % COLOURS[number % len(COLOURS)]
    return Layer(name, run.setup.head(name, predicted).url, "image", shader, visible=predicted is None)


def _is_there(run: Run, layer: Layer) -> bool:
    """False for an output that no chunk has written yet."""
    if not layer.url.startswith(f"{run.url}/"):
        return True
    stages = [stage for stage in run.stages if layer.url in map(run.layout.volume_url, stage.volume_names())]
    return any(run.ledger(stage, read_only=True).done_count(grid) for stage in stages for grid in stage.grids())


def layer_of_volume(url: str, name: str, labels: bool | None = None) -> Layer:
    """A volume that is no run. labels: False for an image, True for labels, None to tell by the type of its voxels."""
    spec = opened.source(url).spec
    if labels is None:
        labels = spec.dtype.kind in "iu" and spec.dtype.itemsize >= LABEL_BYTES
    if not labels:
        return Layer(name, url, "image", AFFINITIES if spec.channels == 3 else GREY)
    if spec.dtype.kind not in "iu" or (spec.channels or 1) > 1:
        raise ConfigError(f"{url} holds {spec.dtype} with {spec.channels or 1} channels; labels are integers of one")
    return Layer(name, url, "segmentation")
