"""Arrays in, labels out: the bytes of ``petaseg run``, and an error for each array that does not fit."""

import tempfile

import numpy as np
import pytest

import petaseg
from pipeline.errors import ConfigError, ModelError
from pipeline.synthetic.tissue import make_tissue
from pipeline.volumes import open_volume
from tests.runs import real_affinities, run, write_run, write_volume

NM = (8, 8, 8)
SMALL = {"patch_shape": [16, 32, 32], "overlap": [4, 8, 8]}


@pytest.fixture(scope="module")
def affinities(shared_data):
    return real_affinities(shared_data, (32, 40, 44))


@pytest.fixture(scope="module")
def tissue():
    return make_tissue((20, 48, 48), seed=3)


def labels_of_run(folder, chunk=None, **tables):
    """The labels that ``petaseg run`` writes."""
    chunks = {} if chunk is None else {"chunk_shape": chunk, "storage_chunk_shape": chunk}
    finished = run(write_run(folder, **chunks, **tables))
    return open_volume(finished.layout.volume_url("labels")).read(finished.layout.bounds)


@pytest.mark.parametrize("chunk", [None, [16, 13, 29], [32, 40, 11]])
def test_labels_of_affinities_are_those_of_a_run_in_any_chunks(tmp_path, affinities, chunk):
    """``agglomerate`` gives the labels that a run writes for the same affinities and mask, whatever its chunks."""
    mask = np.ones(affinities.shape[1:], bool)
    mask[:, 10:14, :30] = False
    labels = petaseg.agglomerate(affinities, resolution=NM, mask=mask, threshold=0.9)
    source = {
        "affinities": write_volume(tmp_path / "affinities.zarr", affinities),
        "mask": write_volume(tmp_path / "mask.zarr", mask.astype(np.uint8)),
    }
    expected = labels_of_run(tmp_path / "run", chunk, input=source, segmentation={"threshold": 0.9})
    assert labels.dtype == np.uint64
    assert len(np.unique(labels)) > 10
    assert np.array_equal(labels, expected)
    assert not labels[~mask].any()


@pytest.mark.parametrize("chunk", [None, [16, 24, 24]])
def test_labels_of_an_image_are_those_of_a_run_in_any_chunks(tmp_path, tissue, chunk):
    """``segment``, and ``agglomerate`` after ``predict``, give the labels that a run writes for the same image."""
    inference = {"model": "synthetic-tiny", **SMALL}
    labels = petaseg.segment(tissue.image, resolution=NM, model="synthetic-tiny", inference=SMALL, threshold=0.5)
    image = write_volume(tmp_path / "image.zarr", tissue.image)
    tables = {"input": {"image": image}, "inference": inference, "segmentation": {"threshold": 0.5}}
    assert labels.any()
    assert np.array_equal(labels, labels_of_run(tmp_path / "run", chunk, **tables))
    predicted = petaseg.predict(tissue.image, "synthetic-tiny", resolution=NM, inference=SMALL)
    assert (predicted.dtype, predicted.shape) == (np.uint8, (3, 20, 48, 48))
    assert np.array_equal(petaseg.agglomerate(predicted, resolution=NM, threshold=0.5), labels)


def test_other_offsets_and_other_types_are_the_same_affinities(affinities):
    """Affinities stored at the lower voxel, in another order, or as floating point give the same labels."""
    expected = petaseg.agglomerate(affinities, resolution=NM)
    upper = np.zeros_like(affinities)
    for axis in range(3):
        lower, higher = [slice(None)] * 3, [slice(None)] * 3
        lower[axis], higher[axis] = slice(None, -1), slice(1, None)
        upper[(axis, *lower)] = affinities[(axis, *higher)]
    offsets = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    first = affinities.copy()
    first[0, 0] = first[1, :, 0] = first[2, :, :, 0] = 0  # no partner in the volume
    assert np.array_equal(petaseg.agglomerate(upper[::-1], resolution=NM, offsets=offsets), expected)
    assert np.array_equal(petaseg.agglomerate(first, resolution=NM), expected)
    assert np.array_equal(petaseg.agglomerate(affinities / np.float32(255), resolution=NM), expected)


def test_a_volume_is_taken_with_its_resolution(affinities):
    """An open volume needs no resolution, and begins where it likes."""
    volume = petaseg.create("memory://taken", affinities.shape, "uint8", NM, offset=(5, -7, 90), overwrite=True)
    volume[...] = affinities
    assert np.array_equal(petaseg.agglomerate(volume), petaseg.agglomerate(affinities, resolution=NM))


def test_whole_numbers_are_an_image_in_any_type(tissue):
    """Types that hold the same whole numbers from 0 to 255 give the same affinities."""
    call = {"model": "synthetic-tiny", "resolution": NM, "inference": SMALL}
    expected = petaseg.predict(tissue.image, **call)
    assert np.array_equal(petaseg.predict(tissue.image.astype(np.float32), **call), expected)
    assert np.array_equal(petaseg.predict(tissue.image.astype(np.int64), **call), expected)


def test_nothing_stays_behind(affinities, tmp_path, monkeypatch):
    """The temporary folder is deleted after a result and after an error."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    petaseg.agglomerate(affinities, resolution=NM)
    with pytest.raises(ConfigError):
        petaseg.agglomerate(affinities, resolution=NM, threshold=0.01)
    assert list(tmp_path.iterdir()) == []


IMAGE = np.full((4, 5, 6), 7, np.uint8)
HOLE = IMAGE.astype(np.float32)
HOLE[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE[0], r"shape \(5, 6\); it must have three axes, \(z, y, x\): one section is image\[np.newaxis\]"),
        (np.stack([IMAGE] * 3), r"shape \(3, 4, 5, 6\).*affinities .* go to petaseg.agglomerate"),
        (IMAGE[None], r"leave the other axes out, image\[0\]"),
        (IMAGE[0, 0], r"shape \(6,\).*stack its sections"),
        (IMAGE[:0], r"shape \(0, 5, 6\) holds no voxel; each axis needs at least one"),
        (HOLE, r"holds nan at \(1, 2, 3\) and in 1 voxels in all; .* np.nan_to_num"),
        (IMAGE / 255, r"float64 from 0.027.* to 0.027.*: np.rint\(image \* 255\).astype\(np.uint8\)"),
        (IMAGE + 0.5, r"float64 from 7.5 to 7.5; .*: np.rint\(image\).astype\(np.uint8\)"),
        (IMAGE.astype(np.uint16) * 100, r"uint16 from 700 to 700; .* whole numbers from 0 to 255: .*np.interp"),
        (IMAGE.astype(np.int8) * -1, r"int8 from -7 to -7"),
        (IMAGE > 0, "holds bool; it must be uint8: convert it"),
        (IMAGE.astype(object), "holds object; it must be uint8"),
    ],
)
@pytest.mark.parametrize("function", [petaseg.segment, petaseg.predict])
def test_an_image_that_does_not_fit_is_refused(function, image, message):
    """Wrong axes, types, ranges and values end in an error with value, rule and remedy, before anything is computed."""
    with pytest.raises(ConfigError, match=message):
        function(image, resolution=NM)


AFFINITIES = np.full((3, 4, 5, 6), 200, np.uint8)
BROKEN = np.ones((3, 4, 5, 6), np.float32)
BROKEN[2, 0, 0, 1] = np.inf


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.moveaxis(AFFINITIES, 0, -1), r"\(4, 5, 6, 3\); .* channels come last: np.moveaxis\(affinities, -1, 0\)"),
        (np.concatenate([AFFINITIES] * 4), r"\(12, 4, 5, 6\); .* affinities\[:3\]"),
        (AFFINITIES[:2], "stack one array .* for each axis"),
        (AFFINITIES[0], r"an image goes to petaseg.segment"),
        (AFFINITIES[:, :0], "holds no voxel"),
        (AFFINITIES.astype(np.int64), "hold int64; they must be uint8"),
        (BROKEN, r"holds inf at \(2, 0, 0, 1\)"),
        (AFFINITIES / 100, r"range from 2 to 2; floating-point affinities must lie in 0..1"),
        (AFFINITIES // 200, r"none is larger than 1; .* affinities \* 255"),
    ],
)
def test_affinities_that_do_not_fit_are_refused(values, message):
    """Wrong channels, types, ranges and values end in an error with value, rule and remedy."""
    with pytest.raises(ConfigError, match=message):
        petaseg.agglomerate(values, resolution=NM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": None}, "an array does not say how large its voxels are; .*resolution="),
        ({"resolution": (8, 8)}, r"resolution is \(8, 8\); it must be three positive numbers"),
        ({"mask": np.ones((4, 5, 7))}, r"mask has shape \(4, 5, 7\); it must cover .* \(4, 5, 6\): crop or pad it"),
        ({"mask": np.ones((4, 5, 6))}, "mask holds float64; it must be bool or integers, 0 = outside: mask > 0"),
        ({"offsets": [(1, 0, 0), (0, 1, 0)]}, "with 2 channels, one for each offset"),
        ({"offsets": [(2, 0, 0), (0, 1, 0), (0, 0, 1)]}, "must name the nearest neighbour along each axis once"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold is nan, which a run file cannot hold"),
        ({"exekution": {"workers": 2}}, "exekution"),
        ({"run_directory": "here"}, "run_directory is 'here'; .* petaseg.run"),
        ({"threshold": 0.4, "segmentation": {"threshold": 0.5}}, "give segmentation.threshold once"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        petaseg.agglomerate(AFFINITIES, **{"resolution": NM, **arguments})


def test_a_model_that_does_not_exist_or_fit_is_refused():
    """An unknown model, and one of other voxels, are refused with the names and the numbers."""
    with pytest.raises((ConfigError, ModelError), match="no-such-model"):
        petaseg.segment(IMAGE, resolution=NM, model="no-such-model")
    with pytest.raises(ConfigError, match=r"voxels of \[40.0, 40.0, 40.0\] nm; model synthetic-tiny was trained on"):
        petaseg.segment(IMAGE, resolution=(40, 40, 40), model="synthetic-tiny")
