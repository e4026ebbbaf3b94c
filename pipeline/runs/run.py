"""A run: its configuration, its inputs, and the chain of its stages. All checks of a run are made here.

``Run.open`` reads the configuration, opens the inputs and builds the stages; nothing is computed or written.
``Run.create`` makes the run directory. Both may be repeated at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline import formats
from pipeline.config.paths import with_paths
from pipeline.config.reading import parse_config, read_config
from pipeline.config.run_file import RunConfig
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.ledger.ledger import Ledger
from pipeline.runs.chain import build_chain
from pipeline.runs.directory import check_directory, claim_directory, forget_left_out
from pipeline.runs.hints import command
from pipeline.runs.inputs import open_inputs
from pipeline.runs.outline import RunOutline, StageOutline, refuse_newer
from pipeline.stages.affinities import AffinitySource, affinity_source
from pipeline.stages.base import Stage
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.cut_merge_tree import cut_rules
from pipeline.stages.layout import Layout
from pipeline.stages.predict_affinities import PredictAffinities
from pipeline.stages.setup import Inputs, Setup
from pipeline.storage import ObjectStore, absolute, local_path, parent_of, store_of

RUN_FILE = "run.yaml"


@dataclass(frozen=True)
class Run:
    """A checked configuration with its inputs; ``stages`` are in the order in which they run."""

    config: RunConfig
    source: str
    """The run file or run directory that the user named; messages and commands repeat it."""
    overrides: tuple[str, ...]
    url: str
    inputs: Inputs

    @classmethod
    def open(cls, path: str | Path, overrides: Sequence[str] = ()) -> Run:
        """Open a run file, or a run directory (its own ``run.yaml``): a path or a URL.

        Raises ``ConfigError``, ``VolumeError`` or ``ModelError`` with the value, the rule and the remedy.
        """
        store, key = run_file(path)
        source = absolute(f"{store.url}/{key}", ".")
        config = with_absolute_paths(read_config(store.get(key), source, overrides), parent_of(source) or "")
        return cls.of(config, str(path), overrides)

    @classmethod
    def of(cls, config: RunConfig, source: str, overrides: Sequence[str] = ()) -> Run:
        """The run of a configuration with absolute paths; errors as ``open``. ``source``: see the field."""
        run = cls(config, source, tuple(overrides), config.run_directory, open_inputs(config))
        cut_rules(run.setup)  # refuses a threshold that does not fit the model's card
        return run

    @cached_property
    def layout(self) -> Layout:
        """The voxels of the run and the places of its outputs."""
        spec = self.inputs.spec
        return Layout(
            run_url=self.url,
            bounds=spec.bounds,
            roi=self.inputs.roi,
            chunk_shape=self.config.chunk_shape,
            storage_chunk_shape=self.config.storage_chunk_shape,
            resolution_nm=spec.resolution_nm,
        )

    @cached_property
    def setup(self) -> Setup:
        """The setup from which the stages are made."""
        return Setup(self.config, self.layout, self.inputs)

    @cached_property
    def stages(self) -> tuple[ChainStage, ...]:
        """The chain of stages; the first is left out if the affinities were given."""
        return build_chain(self.setup)

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
        return Ledger(self.store, stage.name, stage.fingerprint, stage.grids(), read_only=read_only)

    def is_complete(self, stage: Stage) -> bool:
        """True if the ledger holds every chunk of the stage under its present fingerprint."""
        return self.ledger(stage, read_only=True).is_complete()

    def restricted_to(self, box: BoundingBox, run_directory: str) -> Run:
        """The same run on a part of its voxels, in another run directory and without ground truth."""
        data = json.loads(self.config.model_dump_json(exclude_unset=True, exclude={"evaluation"}))
        data["run_directory"] = run_directory
        data["input"].update(start=list(box.start), stop=list(box.stop))
        config: RunConfig = parse_config(data)
        return Run(config, self.source, self.overrides, run_directory, open_inputs(config))

    @cached_property
    def store(self) -> ObjectStore:
        """The run directory."""
        return ObjectStore(self.url)

    @cached_property
    def affinities(self) -> AffinitySource:
        """The source of this run's affinities: predicted, or given."""
        predicted = self.has_stage(PredictAffinities.name)
        return affinity_source(self.setup, self.stage(PredictAffinities.name) if predicted else None)

    @property
    def threshold(self) -> float:
        """The threshold at which the merge tree is cut."""
        return cut_rules(self.setup).threshold

    @cached_property
    def outline(self) -> RunOutline:
        """The outline of the run, for commands from outside."""
        return RunOutline(self.url, self.command, self.config, tuple(StageOutline.of(stage) for stage in self.stages))

    def check_model(self) -> None:
        """Build the network and load its weights, to refuse weights that do not fit before anything is computed."""
        if self.inputs.network is not None:
            from pipeline.models.spec import load_model

            load_model(self.inputs.network.card)

    @property
    def command(self) -> str:
        """The command that resumes this run."""
        return self.hint("run")

    def hint(self, verb: str, *more: str) -> str:
        """The command that does something with this run, with its overrides and more options."""
        return command(verb, self.source, self.overrides, *more)

    def check_directory(self, *, overwrite: bool = False) -> None:
        """Refuse a run directory that is somebody's, or that holds the results of another input (``ConfigError``).

        overwrite: allow ``create`` to delete the results of another input.
        """
        check_directory(self.outline, self.inputs, overwrite=overwrite)

    def create(self, cluster: str | None = None, *, overwrite: bool = False) -> None:
        """Make the run directory and write the configuration as it is run, with absolute paths, and its outline.

        cluster: the cluster whose workers process the chunks, if there is one.
        overwrite: delete the results of another input first, if there are any; else they are refused.

        Raises ``LedgerError`` if a newer petaseg has written them in this run directory.
        """
        refuse_newer(self.store)
        claim_directory(self.outline, self.inputs, overwrite=overwrite)
        forget_left_out(self.store, [stage.name for stage in self.stages], self.layout.fingerprint)
        data = json.loads(self.config.model_dump_json(exclude_unset=True))
        head = "# The configuration of this run, as it was run; paths are absolute.\n"
        self.store.put(RUN_FILE, (head + dump_yaml({**formats.RUN_FILE.stamp, **data})).encode())
        replace(self.outline, cluster=cluster).write()


def run_file(path: str | Path) -> tuple[ObjectStore, str]:
    """The store and key of the run file, given a run file or a run directory."""
    place = str(path).rstrip("/")
    local = local_path(place)
    is_file = local.is_file() if local else place.endswith((".yaml", ".yml"))
    store, key = store_of(place) if is_file else (ObjectStore(place), RUN_FILE)
    if not store.exists(key):
        name = f"{store.url}/{key}" if local is None or local.is_dir() else place
        raise ConfigError(
            f"{name} does not exist; name a run file or a run directory (`petaseg init` writes a run file)"
        )
    return store, key


def with_absolute_paths(config: RunConfig, folder: str) -> RunConfig:
    """The same configuration with relative paths counted from ``folder``, a path or a URL."""
    return with_paths(config, lambda path: absolute(path, folder))
