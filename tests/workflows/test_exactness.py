"""Promise 1: chunk shape, executor and workers do not change one byte of a whole run."""

import pytest

from tests.runs import real_affinities, results, run, write_run, write_volume

CHUNKS = [(48, 60, 70), (16, 32, 24), (13, 17, 29), (24, 60, 11)]


def tables(source, chunk, **more):
    return {
        "input": source,
        "chunk_shape": list(chunk),
        "storage_chunk_shape": list(chunk),
        "segmentation": {"threshold": 0.5, "min_size": 200, "min_size_threshold": 0.3},
        **more,
    }


@pytest.fixture(scope="module")
def affinities(shared_data, tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "affinities.zarr", real_affinities(shared_data))


@pytest.fixture(scope="module")
def mask(tmp_path_factory, affinities):
    import numpy as np

    inside = np.ones((48, 60, 70), np.uint8)
    inside[:, 20:30, 15:40] = 0
    inside[30:, :, 60:] = 0
    return write_volume(tmp_path_factory.mktemp("data") / "mask.zarr", inside)


@pytest.mark.parametrize("mode", ["volume", "section"])
@pytest.mark.parametrize("linkage", ["mean", "quantile"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_any_chunk_shape_gives_the_same_bytes(tmp_path, affinities, mask, mode, linkage, masked):
    """Any chunk shape gives the same bytes, in each mode and linkage, with and without a mask."""
    source = {"affinities": affinities, **({"mask": mask} if masked else {})}
    more = {"supervoxels": {"mode": mode}, "agglomeration": {"linkage": linkage}}
    found = [
        results(run(write_run(tmp_path / str(n), **tables(source, chunk, **more)))) for n, chunk in enumerate(CHUNKS)
    ]
    assert len(found[0]["merge_tree"]) > 1000
    for other in found[1:]:
        assert {name: other[name] == found[0][name] for name in other} == dict.fromkeys(other, True)


def test_a_region_of_interest_is_chunked_like_the_whole(tmp_path, affinities):
    """A region of interest gives the same bytes, ids included, in any chunk shape."""
    source = {"affinities": affinities, "start": [5, 11, 3], "stop": [41, 60, 64]}
    found = [results(run(write_run(tmp_path / str(n), **tables(source, chunk)))) for n, chunk in enumerate(CHUNKS[:3])]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("execution", [{"executor": "threads", "workers": 3}, {"executor": "dask", "workers": 2}])
def test_any_executor_gives_the_same_bytes(tmp_path, affinities, execution):
    """Threads and Dask workers give the bytes of the serial executor."""
    reference = results(run(write_run(tmp_path / "serial", **tables({"affinities": affinities}, CHUNKS[0]))))
    file = write_run(tmp_path / "other", **tables({"affinities": affinities}, CHUNKS[1], execution=execution))
    assert results(run(file)) == reference


def test_the_network_gives_the_same_bytes_in_any_chunk(tmp_path, shared_data):
    """The network's affinities, and all results from them, are the same bytes in any chunk shape."""
    import h5py

    with h5py.File(shared_data / "gala_example.h5") as file:
        image = write_volume(tmp_path / "image.zarr", file["raw"][:40, :72, :64], (10, 10, 10))
    inference = {"model": "fib25-tiny", "batch_size": 2, "patch_shape": [32, 32, 32], "overlap": [8, 8, 8]}
    found = [
        results(run(write_run(tmp_path / str(n), **tables({"image": image}, chunk, inference=inference))))
        for n, chunk in enumerate([(40, 72, 64), (24, 24, 40)])
    ]
    assert "affinities" in found[0]
    assert found[0] == found[1]
