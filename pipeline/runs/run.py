"""A run: its configuration, its inputs, and the chain of its stages. All checks of a run are made here.

``Run.open`` reads the configuration, opens the inputs and builds the stages; nothing is computed or written.
``Run.create`` makes the run directory. Both may be repeated at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import formats
from pipeline.config.paths import with_paths
from pipeline.config.reading import apply_overrides, parse_config, read_config
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.inference.options import FASTEST
from pipeline.ledger.ledger import Ledger
from pipeline.runs.added import tables_of_file, with_added
from pipeline.runs.applied import KEY as APPLIED
from pipeline.runs.applied import (
    KIND,
    Choice,
    Threshold,
    given_table,
    is_of_table,
    own_table,
    own_values,
    read_applied,
    with_applied,
    without,
)
from pipeline.runs.beside import layout_beside, name_in, refuse_foreign
from pipeline.runs.chain import build_chain
from pipeline.runs.directory import (
    InputMark,
    check_directory,
    claim_directory,
    directory_of,
    forget_left_out,
    read_mark,
    refuse_volume,
)
from pipeline.runs.edit_log import read_log
from pipeline.runs.hints import command, continuation
from pipeline.runs.inputs import open_inputs
from pipeline.runs.outline import RunOutline, StageOutline, refuse_newer
from pipeline.runs.precision import key_of, measured, with_fastest, with_recorded
from pipeline.runs.results import KINDS, LEFT_OUT, Cut, ResultKind
from pipeline.segmentation.edits import Edit
from pipeline.stages.affinities import AnyAffinities, affinity_source
from pipeline.stages.base import Stage
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import cut_rules
from pipeline.stages.extract_basins import ExtractBasins
from pipeline.stages.fastest import Fastest, record
from pipeline.stages.landscape import Landscape, refuse_below_tables, threshold_of
from pipeline.stages.layout import BESIDE, Layout, LayoutBeside
from pipeline.stages.predict_heads import PredictHeads, options_of
from pipeline.stages.setup import Inputs, Setup
from pipeline.storage import ObjectStore, absolute, local_path, parent_of, store_of

RUN_KEY = "run.yaml"
UNCUT = {
    "classes": "makes a class map, which has no threshold and nothing to relabel: each voxel has its most probable "
    "class; for a threshold of one class run it with segmentation.kind: mask or objects and head: classes:1, in "
    "another run directory",
    "labels": "takes labels as they are, so there is no threshold and nothing to relabel",
}
"""What a run does that has nothing to cut, by its kind."""


@dataclass(frozen=True)
class Run:
    """A checked configuration with its inputs; ``stages`` are in the order in which they run."""

    config: RunConfig
    source: str
    """The run file or run directory that the user named; messages and commands repeat it."""
    overrides: tuple[str, ...]
    url: str
    inputs: Inputs
    choice: Choice = field(default_factory=Choice)
    """Where the values of the table ``segmentation`` come from."""
    beside: str = ""
    """The name of a second segmentation in the run directory; empty for the run itself."""

    @classmethod
    def open(cls, path: str | Path, overrides: Sequence[str] = (), beside: str = "") -> Run:
        """Open a run file, or a run directory (its own ``run.yaml``): a path or a URL.

        beside: a second segmentation of that run, by its name; the folder of one in a run directory names it as well.

        Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` with the value, the rule and the remedy.
        """
        store, key = run_file(path)
        source, text = absolute(f"{store.url}/{key}", "."), store.get(key)
        folder = parent_of(source) or ""
        config = with_absolute_paths(read_config(text, source, overrides), folder)
        if key == RUN_KEY and "run_directory" not in apply_overrides({}, overrides):
            config = config.model_copy(update={"run_directory": directory_of(folder, config.run_directory)})
        beside = beside or name_in(store.url, ObjectStore(config.run_directory).url)
        if not is_within_run(source, config.run_directory):  # its own file has all that was added
            config = with_added(config, tables_of_file(text, source), overrides, config.run_directory)
        return cls._of(config, str(path), overrides, own_table(text, source), source, beside)

    @classmethod
    def of(cls, config: RunConfig, source: str, overrides: Sequence[str] = ()) -> Run:
        """The run of a configuration with absolute paths; errors as ``open``. ``source``: see the field."""
        return cls._of(config, source, overrides, own_values(config), "", "")

    @classmethod
    def _of(
        cls, config: RunConfig, source: str, overrides: Sequence[str], own: dict[str, Any], file: str, beside: str
    ) -> Run:
        """own: what the table ``segmentation`` says without overrides. file: the run file, if there is one."""
        inputs = with_recorded(open_inputs(config), ObjectStore(config.run_directory))
        config, choice = _with_choice(config, inputs, own, overrides, file)
        run = cls(config, source, tuple(overrides), config.run_directory, inputs, choice, beside)
        if beside:
            _ = run.cut
        _ = run.stages, run.chosen  # refuses heads that there are not, and a threshold that does not fit the card
        return run

    @cached_property
    def layout(self) -> Layout:
        """The voxels of the run and the places of its outputs."""
        spec = self.inputs.spec
        layout = Layout(
            run_url=self.url,
            bounds=spec.bounds,
            roi=self.inputs.roi,
            chunk_shape=self.config.chunk_shape,
            storage_chunk_shape=self.config.storage_chunk_shape,
            resolution_nm=spec.resolution_nm,
        )
        return layout_beside(layout, self.beside, self.kind) if self.beside else layout

    @property
    def kind(self) -> ResultKind:
        """What the run makes of the predictions."""
        return KINDS[self.config.segmentation.kind]

    @property
    def cut(self) -> Cut:
        """How the result is cut from stored tables; ``ConfigError`` if it has no threshold."""
        if self.kind.cut is None:
            raise ConfigError(f"{self.source} {UNCUT[self.kind.name]}")
        return self.kind.cut

    @property
    def result_url(self) -> str:
        """The URL of the volume that holds the result."""
        return self.layout.volume_url(self.kind.volume)

    @cached_property
    def setup(self) -> Setup:
        """The setup from which the stages are made."""
        return Setup(self.config, self.layout, self.inputs, self.edits)

    @cached_property
    def edits(self) -> tuple[Edit, ...]:
        """The corrections of its neurons; none of a mask or objects, and none that were made for another input."""
        edits = read_log(ObjectStore(self.home)).edits if self.kind.name == "neurons" else ()
        mark = read_mark(self.store) if edits else None
        return () if mark is not None and not mark.same_as(InputMark.of(self.inputs)) else edits

    @cached_property
    def stages(self) -> tuple[ChainStage, ...]:
        """The chain of stages; the first is left out if heads were given."""
        chain = build_chain(self.setup)
        return tuple(stage for stage in chain if stage.name not in LEFT_OUT) if self.beside else chain

    def has_stage(self, name: str) -> bool:
        """True if this run has a stage of this name."""
        return any(stage.name == name for stage in self.stages)

    def stage(self, name: str) -> ChainStage:
        """The stage of this name; ``ConfigError`` if this run has none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise ConfigError(f"this run has no stage {name!r}; it has {names}")

    def ledger(self, stage: Stage, *, read_only: bool = False) -> Ledger:
        """The records of one stage; only the driver of a run may open it for writing."""
        store = ObjectStore(self.layout.home(stage.name))
        return Ledger(store, stage.name, stage.fingerprint, stage.grids(), read_only=read_only)

    def is_complete(self, stage: Stage) -> bool:
        """True if the ledger holds every chunk of the stage under its present fingerprint."""
        return self.ledger(stage, read_only=True).is_complete()

    def restricted_to(self, box: BoundingBox, run_directory: str) -> Run:
        """The same run on a part of its voxels, in another run directory, without ground truth and organelles."""
        data = json.loads(self.config.model_dump_json(exclude_unset=True, exclude={"evaluation", "organelles"}))
        data["run_directory"] = run_directory
        data["input"].update(start=list(box.start), stop=list(box.stop))
        config: RunConfig = parse_config(data)
        inputs = with_fastest(open_inputs(config), self.fastest)
        return Run(config, self.source, self.overrides, run_directory, inputs)

    @property
    def fastest(self) -> Fastest | None:
        """The precision that was measured; ``None`` unless the run file leaves it to a measurement."""
        return None if self.inputs.network is None else self.inputs.network.fastest

    def decided(self, *, keep: bool) -> Run:
        """This run with its precision, which is measured here if the run file says ``fastest`` and none is recorded.

        keep: record it; only the driver of a run may, after ``create``.
        """
        network = self.inputs.network
        if network is None or network.config.precision != FASTEST:
            return self
        found = network.fastest or measured(network)
        if keep:  # also one that was known: with another input ``create`` has deleted the record
            found = record(self.store, key_of(network), found)
        return self if found == network.fastest else replace(self, inputs=with_fastest(self.inputs, found))

    @cached_property
    def store(self) -> ObjectStore:
        """The run directory."""
        return ObjectStore(self.url)

    @cached_property
    def affinities(self) -> AnyAffinities:
        """The source of this run's affinities: predicted, or given, or made of membranes."""
        predicted = self.has_stage(BlendHeads.name)
        return affinity_source(self.setup, self.stage(BlendHeads.name) if predicted else None)

    @property
    def threshold(self) -> float:
        """The threshold at which the merge tree is cut, or that the voxels of a mask and of objects exceed.

        Raises ``ConfigError`` if the result has none.
        """
        _, landscape = self.cut, self.landscape
        if landscape is None:
            return cut_rules(self.setup).threshold
        return threshold_of(landscape.head, self.config.segmentation)

    @property
    def landscape(self) -> Landscape | None:
        """What a mask and objects are made of; ``None`` for neurons and classes."""
        stage = self.stage(ExtractBasins.name) if self.has_stage(ExtractBasins.name) else None
        return stage.landscape if isinstance(stage, ExtractBasins) else None

    @property
    def chosen(self) -> Threshold | None:
        """The threshold, with the place that says it; ``None`` if the result has none."""
        if not self.kind.can_be_cut:
            return None
        landscape = self.landscape
        on_card = (self.setup.card_threshold if landscape is None else landscape.head.threshold) is not None
        return self.choice.threshold(self.config, self.threshold, "model's card" if on_card else "default")

    def remember(self) -> None:
        """Record that the values of the table ``segmentation`` in the overrides hold from now on: what relabel does."""
        self.choice.remembering().store_in(self.store)

    @cached_property
    def outline(self) -> RunOutline:
        """The outline of the run, for commands from outside."""
        own = [stage for stage in self.stages if not self.beside or stage.name in self.kind.own]
        stages = tuple(map(StageOutline.of, own))
        precision = "" if self.fastest is None else str(self.fastest)
        return RunOutline(self.home, self.command, self.config, stages, threshold=self.chosen, precision=precision)

    @property
    def home(self) -> str:
        """The run directory, or in it the folder of a second segmentation."""
        return self.layout.home(self.kind.own[0]) if self.beside else self.url

    def check_model(self) -> None:
        """Refuse a patch that the network does not take and weights that do not fit it, before anything is computed.

        Nothing is built if every affinity of these weights is there already.
        """
        network = self.inputs.network
        if network is not None and not self.is_complete(self.stage(PredictHeads.name)):
            from pipeline.inference.patch_check import check_patch  # it needs torch
            from pipeline.models.spec import load_model

            check_patch(load_model(network.card), network.patch_shape, options_of(network))

    @property
    def command(self) -> str:
        """The command that resumes this run."""
        return self._continuation(self.source)

    def _continuation(self, place: str, cluster: str | None = None) -> str:
        """The command that resumes this run, if its file or directory is named by ``place``."""
        if self.beside and not self.names_beside:
            return command("relabel", place, self.overrides, "--output", f"{self.beside}.zarr")
        return continuation(place, self.overrides, cluster)

    @property
    def names_beside(self) -> bool:
        """True if the user has named the folder of a second segmentation."""
        return absolute(self.source, ".").rstrip("/").removesuffix(f"/{RUN_KEY}") == self.home

    def hint(self, verb: str, *more: str) -> str:
        """The command that does something with this run, with its overrides and more options."""
        return command(verb, self.source, self.overrides, *more)

    def relabel_hint(self, *more: str) -> str:
        """The command that looks at, or applies, another cut; it repeats no override that the run directory remembers.

        more: the options of the other cut, which replace an override of the threshold.
        """
        replaced = {"threshold"} if more[0] in ("--threshold", "--preview") else set()
        remembered = list(dict(self.choice.applied).items())

        def stays(override: str) -> bool:
            given = without(given_table([override]), replaced)
            return not is_of_table(override) or any(item not in remembered for item in given.items())

        return command("relabel", self.source, [each for each in self.overrides if stays(each)], *more)

    def check_directory(self, *, overwrite: bool = False) -> None:
        """Refuse a run directory that is somebody's, or that holds the results of another input (``ConfigError``).

        overwrite: allow ``create`` to delete the results of another input.
        """
        if not self.beside:
            check_directory(self.outline, self.inputs, overwrite=overwrite)
            return
        needed = self.cut.tables.name
        if not self.is_complete(self.stage(needed)):
            if self.landscape is not None:
                refuse_below_tables(self.landscape.head, self.config.segmentation)
            raise ConfigError(
                f"{self.url} has no finished {needed} under the configuration of {self.beside}.zarr; finish that run, "
                "or delete this segmentation and make it again"
            )
        assert isinstance(self.layout, LayoutBeside)
        refuse_foreign(self.layout)

    def create(self, cluster: str | None = None, *, overwrite: bool = False) -> None:
        """Make the run directory and write the configuration as it is run, with absolute paths, and its outline.

        cluster: the cluster whose workers process the chunks, if there is one.
        overwrite: delete the results of another input first, if there are any; else they are refused.

        Raises ``LedgerError`` if a newer petaseg has written them in this run directory.
        """
        home = ObjectStore(self.home)
        refuse_newer(home)
        if not self.beside:
            claim_directory(self.outline, self.inputs, overwrite=overwrite)
            forget_left_out(self.store, [stage.name for stage in self.stages], self.layout.fingerprint)
            self.choice.record().store_in(self.store)
        data = json.loads(self.config.model_dump_json(exclude_unset=True))
        head = "# The configuration of this run, as it was run; paths are absolute.\n"
        home.put(RUN_KEY, (head + dump_yaml({**formats.RUN_FILE.stamp, **data})).encode())
        again = self._continuation(absolute(self.source, "."), cluster)  # it is read from any folder
        replace(self.outline, command=again, cluster=cluster).write()


def run_file(path: str | Path) -> tuple[ObjectStore, str]:
    """The store and key of the run file, given a run file or a run directory."""
    place = str(path).rstrip("/")
    local = local_path(place)
    is_file = local.is_file() if local else place.endswith((".yaml", ".yml"))
    store, key = store_of(place) if is_file else (ObjectStore(place), RUN_KEY)
    if not store.exists(key):
        refuse_volume(place)
        name = f"{store.url}/{key}" if local is None or local.is_dir() else place
        raise ConfigError(
            f"{name} does not exist; name a run file or a run directory (`petaseg init` writes a run file)"
        )
    return store, key


def is_within_run(source: str, run_directory: str) -> bool:
    """True for the ``run.yaml`` in the run directory, and for that of a second segmentation beside it."""
    url = ObjectStore(run_directory).url
    return source.startswith((f"{url}/{RUN_KEY}", f"{url}/{BESIDE}/"))


def _with_choice(
    config: RunConfig, inputs: Inputs, own: dict[str, Any], overrides: Sequence[str], source: str
) -> tuple[RunConfig, Choice]:
    """The configuration with what relabel has applied in the run directory, and where its values come from.

    own: the table ``segmentation`` of the run file at ``source``, which is empty if there is none.
    """
    store, given = ObjectStore(config.run_directory), given_table(overrides)
    kept = read_applied(store)
    if kept is not None and (mark := read_mark(store)) is not None and not mark.same_as(InputMark.of(inputs)):
        kept = None  # it is about the results of another input
    if is_within_run(source, config.run_directory):  # it has all that was applied
        return config, Choice(own if kept is None else kept.file, {} if kept is None else kept.values, given)
    held = {} if kept is None or given.get(KIND, own.get(KIND)) != own.get(KIND) else kept.held_by(own)
    now = without(held, given)
    return with_applied(config, now, f"{store.url}/{APPLIED}"), Choice(own, held, given)


def with_absolute_paths(config: RunConfig, folder: str) -> RunConfig:
    """The same configuration with relative paths counted from ``folder``, a path or a URL."""
    return with_paths(config, lambda path: absolute(path, folder))
