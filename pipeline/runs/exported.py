"""Which volumes of a run are exported, and with which levels."""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.downsample import DownsampleImage
from pipeline.volumes.export import Exported
from pipeline.volumes.levels import listed_levels

IMAGE = "image"


def exported(run: Run, name: str | None) -> Exported:
    """A finished volume of a run with the levels that it lists; by default the result.

    Raises ``ConfigError`` if the run has no volume of this name, or has not finished it.
    """
    name = name or run.kind.volume
    if name == IMAGE and run.inputs.image_url is not None:
        return _image(run)
    stage = _writer(run, name)
    if not run.is_complete(stage):
        raise ConfigError(
            f"{run.source} has not finished {stage.name} under this configuration, and only finished volumes are "
            f"exported: first `{run.command}`"
        )
    return Exported(name, listed_levels(run.layout.volume_url(name)))


def image_of(run: Run) -> Exported | None:
    """The image with its levels; ``None`` for a run that has none."""
    return None if run.inputs.image_url is None else _image(run)


def _image(run: Run) -> Exported:
    """Level 0 is the user's; coarser ones are in the run directory, if they are complete."""
    name = DownsampleImage.name
    there = run.has_stage(name) and run.is_complete(run.stage(name))
    assert run.inputs.image_url is not None
    return Exported(IMAGE, (run.inputs.image_url, *(listed_levels(run.layout.volume_url(IMAGE)) if there else ())))


def _writer(run: Run, name: str) -> ChainStage:
    """The stage that writes a volume."""
    stages = [stage for stage in run.stages if stage.name != DownsampleImage.name]
    for stage in stages:
        if name in stage.volume_names():
            return stage
    names = [each for stage in stages for each in stage.volume_names()]
    names += [IMAGE] if run.inputs.image_url is not None else []
    raise ConfigError(f"--volume is {name!r}; this run has {', '.join(names)}")
