"""The workers that process the chunks of a stage: on this machine as the table ``execution`` says, or on a cluster."""

from __future__ import annotations

from pipeline.config.cluster import WorkerShape
from pipeline.config.run_file import RunConfig
from pipeline.execution import engine_of


def shape_of(config: RunConfig, *, network: bool) -> WorkerShape:
    """The shape of a cluster's workers for a stage. network: whether the stage runs the network."""
    return (network and config.cluster.inference_workers) or config.cluster.workers


def slots_of(config: RunConfig, cluster: str | None, *, network: bool) -> int | None:
    """How many chunks of a stage run at a time; ``None`` for the workers of an existing Dask scheduler.

    cluster: the cluster whose workers process the chunks, if there is one.
    """
    if cluster is not None:
        shape = shape_of(config, network=network)
        return shape.count * shape.threads
    settings, engine = config.execution, engine_of(config.execution.executor)
    return None if settings.scheduler is not None and "scheduler" in engine.takes else engine.slots(settings)
