"""Every storage format passes the contract of volumes."""

import json
import uuid
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr
from PIL import Image

from pipeline.geometry import BoundingBox
from pipeline.volumes.memory import delete_memory_volume
from tests.contracts.volume import CHUNK, ReadContract, WriteContract


class TestZarr(WriteContract):
    dtypes = ("uint8", "uint16", "uint32", "uint64", "int32", "float32", "float64")

    def url(self, folder: Path) -> str:
        return str(folder / "volume.zarr")


class TestShardedZarr(WriteContract):
    storage_shard = (32, 16, 32)

    def url(self, folder: Path) -> str:
        return f"file://{folder}/volume.zarr"


class TestZarrInABucket(WriteContract):
    def url(self, folder: Path) -> str:
        return f"mem://bucket{folder}"


class TestPrecomputed(WriteContract):
    def url(self, folder: Path) -> str:
        return f"precomputed://{folder / 'layer'}"


class TestPrecomputedInABucket(WriteContract):
    def url(self, folder: Path) -> str:
        return f"precomputed://mem://layers{folder}"


class TestMemory(WriteContract):
    def url(self, folder: Path) -> str:
        return f"memory://{folder}"

    def teardown_method(self) -> None:
        from pipeline.volumes.memory import _arrays

        for name in list(_arrays):
            delete_memory_volume(name)


class TestHdf5(ReadContract):
    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{uuid.uuid4().hex}.h5"
        with h5py.File(file, "w") as h5:
            dataset = h5.create_dataset("group/raw", data=data, chunks=(*data.shape[:-3], *CHUNK))
            dataset.attrs["resolution_nm"] = self.resolution_nm
            dataset.attrs["offset"] = self.bounds.start
        return f"{file}:group/raw"


class TestNpy(ReadContract):
    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "raw.npy", data)
        return f"{folder / 'raw.npy'}#{place(self.resolution_nm, self.bounds)}"


class TestTiffFolder(ReadContract):
    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        for number, section in enumerate(channels_last(data)):
            tifffile.imwrite(folder / f"z{number}.tif", section, photometric=photometric(data))
        return f"{folder}#{place(self.resolution_nm, self.bounds)}"


class TestCompressedMultiPageTiff(ReadContract):
    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / "raw.tif", channels_last(data), photometric=photometric(data), compression="zlib")
        return f"{folder / 'raw.tif'}#{place(self.resolution_nm, self.bounds)}"


class TestTiffWithColoursApart(ReadContract):
    """Each section stores its reds, then its greens, then its blues."""

    channels = (3,)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        sections = data if data.ndim == 4 else np.stack([data] * 3)
        for number, section in enumerate(np.moveaxis(sections, 1, 0)):
            tifffile.imwrite(folder / f"z{number}.tif", section, photometric="rgb", planarconfig="separate")
        channel = "" if data.ndim == 4 else "&channel=1"
        return f"{folder}#{place(self.resolution_nm, self.bounds)}{channel}"


class TestGreyPngs(ReadContract):
    dtypes = ("uint8", "uint16")
    channels = (None,)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        return pngs(folder, data, self.resolution_nm, self.bounds)


class TestColourPngs(ReadContract):
    dtypes = ("uint8",)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        return pngs(folder, data, self.resolution_nm, self.bounds)


class TestGreyTiles(ReadContract):
    """Tiles of 17 x 20 voxels, PNG or TIFF by their type; the last ones are smaller."""

    channels = (None,)
    dtypes = ("uint8", "uint16", "uint32", "uint64")

    def stored(self, folder: Path, data: np.ndarray) -> str:
        return tiles(folder, data, self.resolution_nm, self.bounds)


class TestColourTiles(ReadContract):
    dtypes = ("uint8",)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        return tiles(folder, data, self.resolution_nm, self.bounds)


class TestOneChannel(ReadContract):
    """One channel of a volume keeps every promise of a volume without channels."""

    channels = (None,)

    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "raw.npy", np.stack([np.zeros_like(data), data]))
        return f"{folder / 'raw.npy'}#{place(self.resolution_nm, self.bounds)}&channel=1&axes=czyx"


class TestPlainZarr2(ReadContract):
    """An array of zarr version 2 in Fortran order, as older tools write it."""

    def stored(self, folder: Path, data: np.ndarray) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        array = zarr.create_array(
            folder / "raw",
            shape=data.shape,
            dtype=data.dtype,
            chunks=(*data.shape[:-3], *CHUNK),
            zarr_format=2,
            order="F",
            fill_value=0,
        )
        array[...] = data
        array.attrs.update(
            {
                "voxel_size": list(self.resolution_nm),
                "offset": [a * b for a, b in zip(self.bounds.start, self.resolution_nm, strict=True)],
            }
        )
        return str(folder / "raw")


def place(resolution_nm: tuple[float, float, float], bounds: BoundingBox) -> str:
    return f"resolution={','.join(map(str, resolution_nm))}&offset={','.join(map(str, bounds.start))}"


def channels_last(data: np.ndarray) -> np.ndarray:
    """(z, y, x) as it is, and (c, z, y, x) as (z, y, x, c)."""
    return np.moveaxis(data, 0, -1) if data.ndim == 4 else data


def photometric(data: np.ndarray) -> str:
    return "rgb" if data.ndim == 4 else "minisblack"


def pngs(folder: Path, data: np.ndarray, resolution_nm: tuple[float, float, float], bounds: BoundingBox) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number, section in enumerate(channels_last(data)):
        Image.fromarray(section).save(folder / f"z{number}.png")
    return f"{folder}#{place(resolution_nm, bounds)}"


def tiles(folder: Path, data: np.ndarray, resolution_nm: tuple[float, float, float], bounds: BoundingBox) -> str:
    """A tile set of PyTorch Connectomics whose rows count from 1 and columns from 5."""
    ending = "png" if data.dtype in ("uint8", "uint16") else "tif"
    for number, section in enumerate(channels_last(data)):
        (folder / str(number)).mkdir(parents=True)
        for row, column in product(range(-(-section.shape[0] // 17)), range(-(-section.shape[1] // 20))):
            tile = np.ascontiguousarray(section[row * 17 : row * 17 + 17, column * 20 : column * 20 + 20])
            file = folder / str(number) / f"{row + 1}_{column + 5:02d}.{ending}"
            Image.fromarray(tile).save(file) if ending == "png" else tifffile.imwrite(file, tile)
    described = {
        "ndim": 3 if data.ndim == 4 else 1,
        "dtype": str(data.dtype),
        "image": [f"{number}/{{row}}_{{column:02d}}.{ending}" for number in range(len(channels_last(data)))],
        **dict(zip(("depth", "height", "width"), bounds.shape, strict=True)),
        "tile_size": [17, 20],
        "tile_st": [1, 5],
        "tile_ratio": 1,
        "resolution_nm": resolution_nm,
        "offset": bounds.start,
    }
    (folder / "tiles.json").write_text(json.dumps(described))
    return f"{folder}/tiles.json"
