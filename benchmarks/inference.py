"""Pipeline inference against the bare network over the same patches: the price of tiles, blending and storage.

    python benchmarks/inference.py [--model fib25-tiny] [--threads 2] [--augmentation flips] [--device cuda ...]

The pipeline reads chunks of a zarr volume, predicts their patches, stores what they hand on, blends it and writes uint8
affinities to another zarr volume, reading and writing while the network runs. The bare network runs over exactly these
patches, which lie in memory, cut and normalised, and its output is thrown away. Both run in this process with the same
threads, in turns; the best round of each counts, so that a busy machine matters little. Exit status 1 if their ratio is
above 1.10.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.inference.augmentation import variants
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.pieces import Pieces
from pipeline.inference.predictor import PredictOptions, Predictor
from pipeline.inference.runtime import forward_state
from pipeline.inference.shares import PatchShares
from pipeline.models.spec import LoadedModel, load_card, load_model
from pipeline.storage import ObjectStore
from pipeline.volumes import VolumeSpec, create_volume

LIMIT = 1.10
IO_THREADS = 3
RESOLUTION_NM = (8.0, 8.0, 8.0)


def main() -> int:
    """Print one line a round and the ratio of the best rounds."""
    arguments = parse()
    options = PredictOptions(
        device=arguments.device,
        precision=arguments.precision,
        threads=arguments.threads,
        batch_size=arguments.batch_size,
        augmentation=arguments.augmentation,
    )
    loaded = load_model(load_card(arguments.model))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        pipeline, bare, patches = prepare(Path(folder), loaded, options, arguments.chunks)
        print(f"{arguments.model}: {patches} patches of {loaded.card.patch_shape}, {options}")
        rounds = [compare(pipeline, bare, patches) for _ in range(arguments.rounds)]
    ratio = min(through for through, _ in rounds) / min(alone for _, alone in rounds)
    print(f"pipeline / bare network: {ratio:.3f} (limit {LIMIT})")
    return int(ratio > LIMIT)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fib25-tiny", help="name of a bundled model, or a card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--augmentation", default="none")
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the zarr volumes are made; default: the system's temporary folder")
    return parser.parse_args()


def prepare(
    folder: Path, loaded: LoadedModel, options: PredictOptions, chunks: int
) -> tuple[Callable[[], None], Callable[[], None], int]:
    """The two things to time, warmed up, and how many patches each runs."""
    patch, overlap = loaded.card.patch_shape, loaded.card.overlap
    z, y, x = (2 * (p - o) for p, o in zip(patch, overlap, strict=True))
    bounds = BoundingBox.from_shape((z * chunks, y, x)).grow((0, 0, 0), overlap)
    lattice, grid = PatchLattice(bounds, patch, overlap), ChunkGrid(bounds, bounds, (z, y + overlap[1], x + overlap[2]))
    predictor, shares = Predictor(loaded, options), PatchShares(lattice, grid)
    image = np.random.default_rng(0).integers(0, 256, bounds.shape, dtype=np.uint8)
    pipeline = pipeline_run(folder, predictor, image, shares)
    inputs = (batches_of(predictor, image, shares, chunk) for chunk in with_patches(shares))
    bare = bare_run(predictor, [batch for batches in inputs for batch in batches])
    for run in (pipeline, bare):
        run()
    return pipeline, bare, shares.count


def pipeline_run(folder: Path, predictor: Predictor, image: np.ndarray, shares: PatchShares) -> Callable[[], None]:
    """Zarr to zarr over all chunks, through what they hand on: threads read and write while one holds the network."""
    grid, lattice, pieces = shares.grid, shares.lattice, Pieces(shares, predictor.outside)
    storage = tuple(min(64, n) for n in grid.shape)
    source = create_volume(f"{folder}/image.zarr", VolumeSpec(grid.bounds, RESOLUTION_NM, image.dtype, None, storage))
    source.write(grid.bounds, image)
    spec = VolumeSpec(grid.bounds, RESOLUTION_NM, np.dtype("uint8"), predictor.options.channels, storage)
    target, parts = create_volume(f"{folder}/affinities.zarr", spec), ObjectStore(folder)
    network = threading.Lock()

    def predict(chunk: Chunk) -> None:
        patches, box = shares.patches(chunk), shares.reach(chunk)
        voxels = source.read(lattice.around(patches))
        with network:
            sums, _ = predictor.sums(voxels, patches=patches, box=box, lattice=lattice)
        parts.put_arrays(f"parts/{chunk.name}", pieces.cut(sums, chunk))

    def blend(chunk: Chunk) -> None:
        found = ((each, parts.get_array(f"parts/{each.name}", chunk.name)) for each in shares.sources(chunk))
        target.write(chunk.core, pieces.join(found, chunk))

    def run() -> None:
        with ThreadPoolExecutor(IO_THREADS) as pool:
            list(pool.map(predict, with_patches(shares)))
            list(pool.map(blend, grid))

    return run


def with_patches(shares: PatchShares) -> list[Chunk]:
    """The chunks that compute a patch."""
    return [chunk for chunk in shares.grid if not shares.reach(chunk).empty]


def batches_of(predictor: Predictor, image: np.ndarray, shares: PatchShares, chunk: Chunk) -> list[Tensor]:
    """The network's inputs for one chunk, (batch_size, 1, z, y, x) each, on the device; the last one padded."""
    card, size, lattice = predictor.card, predictor.batch_size, shares.lattice
    indices = product(*shares.patches(chunk))
    patches = [image[lattice.box(index).slices(lattice.bounds.start)] for index in indices]
    patches += [patches[0]] * (-len(patches) % size)
    images = torch.from_numpy(np.stack(patches)).to(predictor.device, torch.float32)[:, None]
    images = ((images - card.normalisation.offset) / card.normalisation.scale).split(size)
    return [batch.contiguous(memory_format=predictor.memory_format) for batch in images]


def bare_run(predictor: Predictor, batches: list[Tensor]) -> Callable[[], None]:
    """The network alone over all batches, as often as there are variants."""
    repeats = len(variants(predictor.options.augmentation))

    def run() -> None:
        with forward_state(predictor.options):
            for batch in batches:
                for _ in range(repeats):
                    predictor.network(batch)
            if predictor.device.type == "cuda":
                torch.cuda.synchronize()

    return run


def compare(pipeline: Callable[[], None], bare: Callable[[], None], patches: int) -> tuple[float, float]:
    """One round: both in turn; seconds per patch of each."""
    through, alone = seconds(pipeline) / patches, seconds(bare) / patches
    print(f"pipeline {through:8.4f} s/patch   bare {alone:8.4f} s/patch   {through / alone:.3f}")
    return through, alone


def seconds(run: Callable[[], None]) -> float:
    """Wall-clock time."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
