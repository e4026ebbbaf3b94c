"""A training as a job of a cluster: ``petaseg train`` on one node, with as many GPUs and cores as the file says.

<output>/cluster/training.yaml     the training file with absolute paths, as the job reads it at each start
<output>/cluster/driver.json       where the job was submitted
<output>/cluster/training-<job>.log    what it writes (SLURM)
"""

from __future__ import annotations

import json

from pipeline.clusters import make_cluster
from pipeline.clusters.base import DRIVER_RECORD, Cluster, DriverJob, LoneJob, lone_jobs
from pipeline.config.paths import paths_in
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ClusterError, ConfigError, counted
from pipeline.storage import ObjectStore, local_path
from pipeline.training.config import TrainConfig

FILE = "cluster/training.yaml"
"""The training file that the job reads, in the output folder."""


def lone_job(config: TrainConfig, setup: str = "") -> LoneJob:
    """The job of a training; ``ConfigError`` if the file does not say what it needs.

    config: with absolute paths. setup: as in ``LoneJob``.
    """
    if config.device == "auto":
        raise ConfigError(
            f"device is auto; a job must say what it needs: device: cuda asks for "
            f"{counted(config.devices, 'GPU')}, as many as devices says, and device: cpu for none"
        )
    if config.nodes > 1:
        raise ConfigError(
            f"nodes is {config.nodes}; `petaseg submit` trains in one job on one node: leave nodes out, or start the "
            "training on each node by torchrun (docs/training.md)"
        )
    if local_path(config.output) is None:
        raise ConfigError(f"output is {config.output}; a training writes into a folder of a disk: name one")
    file = f"{config.output}/{FILE}"
    cores = config.devices * (config.threads + config.loaders)
    return LoneJob(
        url=config.output,
        file=file,
        places=paths_in(config),
        command=("-m", "workflows.cli", "train", file),
        cluster=config.cluster,
        cpus=max(cores, config.cluster.driver.cpus),
        gpus=config.devices if config.device == "cuda" else 0,
        setup=setup,
    )


def submit(job: LoneJob, config: TrainConfig, cluster: Cluster, again: str) -> DriverJob:
    """Submit a training and record it; ``ClusterError`` if one in the same folder is waiting or running.

    again: the commands that show and end the earlier one, for the message.
    """
    store = ObjectStore(job.url)
    earlier = store.get_or_none(DRIVER_RECORD)
    if earlier is not None:
        record = DriverJob.decode(earlier, f"{job.url}/{DRIVER_RECORD}")
        if make_cluster(record.cluster).state(record).phase in ("pending", "running"):
            raise ClusterError(f"a training in {job.url} was submitted already, as {record.id}, and is alive; {again}")
    jobs = lone_jobs(cluster)
    jobs.render_lone(job)  # what is refused leaves no output folder
    config.make_output()
    store.put(FILE, dump_yaml(json.loads(config.model_dump_json(exclude_unset=True))).encode())
    record = jobs.submit_lone(job)
    store.put(DRIVER_RECORD, record.encode())
    return record
