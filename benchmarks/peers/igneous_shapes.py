"""Levels, meshes and skeletons of a labelled volume by igneous, as its documentation runs them; one JSON line each.

    PYTHON benchmarks/peers/igneous_shapes.py LABELS.npy OUTPUT SIZE_X,Y,Z_NM LEAST_VOXELS

PYTHON is that of an environment with igneous-pipeline (GPL-3), which petaseg never imports. Started by
``benchmarks/shapes_vs_igneous.py``.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import igneous.task_creation as tasks
import numpy as np
from cloudvolume import CloudVolume
from taskqueue import LocalTaskQueue

BLOCK = (256, 256, 256)
"""Voxels of a task, as the chunks of the other side."""


def timed(name: str, *makers: Callable[[], Iterable[Any]]) -> None:
    """Run the tasks of each maker after another, and print the processor time."""
    began, queue = time.process_time(), LocalTaskQueue(parallel=1, progress=False)
    for make in makers:
        queue.insert(make())
        queue.execute()
    print(json.dumps({"part": name, "seconds": time.process_time() - began}), flush=True)


def main() -> None:
    """Store the labels, and run the three parts."""
    labels, output, resolution, least = sys.argv[1:]
    url, smallest, nm = f"file://{output}", int(least), tuple(map(float, resolution.split(",")))
    volume = np.load(labels).T.astype(np.uint64)
    chunks = {"chunk_size": (64, 64, 64), "layer_type": "segmentation", "progress": False}
    began = time.process_time()
    CloudVolume.from_numpy(volume, url, resolution=nm, **chunks)
    print(json.dumps({"part": "store", "seconds": time.process_time() - began}), flush=True)
    timed("levels", lambda: tasks.create_downsampling_tasks(url, num_mips=3))
    timed(
        "meshes",
        lambda: tasks.create_meshing_tasks(
            url, 0, BLOCK, dust_threshold=smallest, dust_global=False, mesh_dir="mesh", sharded=True
        ),
        lambda: tasks.create_sharded_multires_mesh_tasks(url, num_lod=3, mesh_dir="mesh", progress=False),
    )
    teasar = {"scale": 1.5, "const": 300}
    timed(
        "skeletons",
        lambda: tasks.create_skeletonizing_tasks(
            url, 0, BLOCK, teasar_params=teasar, dust_threshold=smallest, dust_global=False, sharded=True
        ),
        lambda: tasks.create_sharded_skeleton_merge_tasks(url, dust_threshold=0, tick_threshold=900),
    )


if __name__ == "__main__":
    main()
