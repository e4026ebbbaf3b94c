"""Every stage of a run keeps the contract."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import WorkerEnvironmentError
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.runs.chain import STAGES
from pipeline.runs.edit_log import EditLog
from pipeline.runs.run import Run
from pipeline.segmentation.edits import Edit
from pipeline.stages import opened
from pipeline.storage import ObjectStore
from tests.contracts.stage import StageContract
from tests.runs import write_run, write_volume

SHAPE = (20, 24, 28)
CHUNK = [10, 24, 14]


def small_run(folder):
    """Voxels of every kind: an image, a mask, labels and a skeleton; the network is the identity."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 2, (5, 6, 7)), np.ones((4, 4, 4))).astype(np.uint8) * 150 + 50
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :5, :9] = 0
    truth = np.kron(np.arange(1, 28).reshape(3, 3, 3), np.ones((7, 8, 10)))[:20, :, :28].astype(np.uint32)
    skeleton = folder / "lines.npz"
    np.savez(skeleton, nodes_nm=[[8.0, 8, 8], [80, 150, 200]], edges=[[0, 1]], skeleton=[1, 1])
    return write_run(
        folder,
        input={
            "image": write_volume(folder / "image.zarr", image),
            "mask": write_volume(folder / "mask.zarr", mask),
        },
        chunk_shape=CHUNK,
        storage_chunk_shape=CHUNK,
        inference={"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4]},
        segmentation={"threshold": 0.5, "min_size": 50},
        downsample={"levels": 2, "volumes": ["result", "heads", "image", "supervoxels"]},
        meshes={"smallest_voxels": 50},
        skeletons={"smallest_voxels": 50},
        measures={},
        organelles={"volumes": {"nuclei": write_volume(folder / "nuclei.zarr", truth // 3)}},
        evaluation={
            "labels": write_volume(folder / "truth.zarr", truth),
            "skeletons": str(skeleton),
            "start": [3, 0, 2],
        },
    )


def edited_run(folder):
    """The small run with an edit log in its run directory, before it has run."""
    edits = [Edit("merge", (1,), (29,)), Edit("split", (1,), (29,)), Edit("merge", (10**9,), (1,))]
    ObjectStore(folder / "run").put("edits.json", EditLog().with_edits(edits).encode())
    return small_run(folder)


def objects_run(folder, kind):
    """Two given heads, a mask of the tissue, seeds and true objects."""
    rng, kinds = np.random.default_rng(1), {"objects": {"seed_threshold": 0.8}, "mask": {"median": [3, 3, 3]}}
    heads = {
        name: write_volume(folder / f"{name}.zarr", rng.integers(0, 256, SHAPE, np.uint8))
        for name in ("foreground", "contours")
    }
    if kind == "objects":
        kinds[kind] |= {"seeds_within": {"contours": {"below": 0.7}}, "within": {"contours": {"above": 0.1}}}
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :5, :9] = 0
    truth = (rng.random(SHAPE) > 0.5).astype(np.uint32)
    return write_run(
        folder,
        input={"heads": heads, "mask": write_volume(folder / "mask.zarr", mask)},
        chunk_shape=CHUNK,
        storage_chunk_shape=CHUNK,
        segmentation={"kind": kind, "head": "foreground", "threshold": 0.3, "min_size": 3, **kinds[kind]},
        downsample={"levels": 2},
        meshes={"smallest_voxels": 3},
        skeletons={"smallest_voxels": 3},
        measures={},
        organelles={"volumes": {"nuclei": write_volume(folder / "nuclei.zarr", truth)}},
        evaluation={"labels": write_volume(folder / "truth.zarr", truth)},
    )


def classes_run(folder):
    """Given probabilities of three classes with many ties, a mask of the tissue, and true classes."""
    rng = np.random.default_rng(2)
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :5, :9] = 0
    heads = {"classes": write_volume(folder / "classes.zarr", rng.integers(0, 6, (3, *SHAPE)).astype(np.uint8) * 51)}
    return write_run(
        folder,
        input={"heads": heads, "mask": write_volume(folder / "mask.zarr", mask)},
        chunk_shape=CHUNK,
        storage_chunk_shape=CHUNK,
        segmentation={"kind": "classes"},
        downsample={"levels": 2},
        measures={},
        evaluation={"labels": write_volume(folder / "truth.zarr", rng.integers(0, 3, SHAPE).astype(np.uint8))},
    )


def labels_run(folder):
    """Given labels of 64 bits, an image beside them, and a mask of the tissue."""
    rng = np.random.default_rng(3)
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :5, :9] = 0
    given = {
        "labels": write_volume(folder / "labels.zarr", rng.integers(0, 9, SHAPE).astype(np.uint64) << np.uint64(40)),
        "image": write_volume(folder / "image.zarr", rng.integers(0, 256, SHAPE, np.uint8)),
        "mask": write_volume(folder / "mask.zarr", mask),
    }
    shapes = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK}
    return write_run(folder, input=given, segmentation={"kind": "labels"}, downsample={"levels": 1}, **shapes)


class EveryStage(StageContract):
    """The contract for the stage that ``name`` says, after all stages before it have run."""

    stage_name: str
    kind = "neurons"

    def make(self, folder):
        opened.forget()
        written = {"neurons": edited_run, "classes": classes_run, "labels": labels_run}.get(
            self.kind, lambda at: objects_run(at, self.kind)
        )
        run = Run.open(written(folder))
        for stage in run.stages:
            if stage.name == self.stage_name:
                return stage
            run_stage(
                stage,
                run.ledger(stage),
                make_executor("serial"),
                RunOptions.of(Execution(attempts=1), "petaseg run run.yaml"),
            )
        raise AssertionError(self.stage_name)


class TestPredictHeads(EveryStage):
    stage_name = "predict_heads"


class TestBlendHeads(EveryStage):
    stage_name = "blend_heads"


class TestExtractSupervoxels(EveryStage):
    stage_name = "extract_supervoxels"


class TestBuildRegionGraph(EveryStage):
    stage_name = "build_region_graph"


class TestAgglomerate(EveryStage):
    stage_name = "agglomerate"


class TestCutMergeTree(EveryStage):
    stage_name = "cut_merge_tree"


class TestApplyEdits(EveryStage):
    stage_name = "apply_edits"


class TestAssignSegments(EveryStage):
    stage_name = "assign_segments"


class TestWriteSupervoxels(EveryStage):
    stage_name = "write_supervoxels"


class TestRelabel(EveryStage):
    stage_name = "relabel"


class TestEvaluateSegmentation(EveryStage):
    stage_name = "evaluate_segmentation"


class TestFilterHead(EveryStage):
    stage_name = "filter_head"
    kind = "mask"


class TestExtractBasins(EveryStage):
    stage_name = "extract_basins"
    kind = "objects"


class TestBuildBasinGraph(EveryStage):
    stage_name = "build_basin_graph"
    kind = "objects"


class TestUniteBasins(EveryStage):
    stage_name = "unite_basins"
    kind = "objects"


class TestAssignObjects(EveryStage):
    stage_name = "assign_objects"
    kind = "objects"


class TestWriteObjects(EveryStage):
    stage_name = "write_objects"
    kind = "objects"


class TestWriteMask(EveryStage):
    stage_name = "write_mask"
    kind = "mask"


class TestWriteClasses(EveryStage):
    stage_name = "write_classes"
    kind = "classes"


class TestEvaluateClasses(EveryStage):
    stage_name = "evaluate_segmentation"
    kind = "classes"


class TestDownsampleClasses(EveryStage):
    stage_name = "downsample_result"
    kind = "classes"


class TestMeasureClasses(EveryStage):
    stage_name = "measure"
    kind = "classes"


class TestDownsampleResult(EveryStage):
    stage_name = "downsample_result"


class TestDownsampleMask(EveryStage):
    stage_name = "downsample_result"
    kind = "mask"


class TestDownsampleSupervoxels(EveryStage):
    stage_name = "downsample_supervoxels"


class TestDownsampleHeads(EveryStage):
    stage_name = "downsample_heads"


class TestDownsampleImage(EveryStage):
    stage_name = "downsample_image"


class TestExtractMeshes(EveryStage):
    stage_name = "extract_meshes"


class TestExtractMeshesOfObjects(EveryStage):
    stage_name = "extract_meshes"
    kind = "objects"


class TestWriteMeshes(EveryStage):
    stage_name = "write_meshes"


class TestExtractSkeletons(EveryStage):
    stage_name = "extract_skeletons"


class TestExtractSkeletonsOfObjects(EveryStage):
    stage_name = "extract_skeletons"
    kind = "objects"


class TestWriteSkeletons(EveryStage):
    stage_name = "write_skeletons"


class TestMeasure(EveryStage):
    stage_name = "measure"


class TestMeasureMask(EveryStage):
    stage_name = "measure"
    kind = "mask"


class TestTakeLabels(EveryStage):
    stage_name = "take_labels"
    kind = "labels"


class TestCountInside(EveryStage):
    stage_name = "count_inside"


def test_no_stage_escapes_the_contract(tmp_path):
    """Every stage of a run has its class of contract tests above."""
    tested = {case.stage_name for case in EveryStage.__subclasses__()}
    runs = [edited_run(tmp_path), *(objects_run(tmp_path / kind, kind) for kind in ("mask", "objects"))]
    runs += [classes_run(tmp_path / "classes"), labels_run(tmp_path / "labels")]
    there = {stage.name for file in runs for stage in Run.open(file).stages}
    assert tested == {kind.name for kind in STAGES} == there


def test_a_worker_on_another_kind_of_device_refuses(tmp_path):
    """A worker without a GPU refuses the chunks of a run on GPUs, so that another worker may do them."""
    run = Run.open(small_run(tmp_path))
    stage = replace(run.stages[0], device="cuda")
    stage.prepare()
    with pytest.raises(WorkerEnvironmentError, match=r"on cpu.* the run is on cuda: .*inference\.device"):
        stage.run_chunk(next(iter(stage.grids()[0])))
    assert not (tmp_path / "run" / "environments").exists()


def test_a_driver_without_a_gpu_speaks_of_its_workers_gpu(tmp_path):
    """A driver without a GPU opens a run on GPUs, and a worker without the named GPU refuses to compute."""
    plain = Run.open(small_run(tmp_path)).stages[0]
    named = Run.open(small_run(tmp_path), ["inference.device=cuda", "inference.gpu=NVIDIA H200"]).stages[0]
    assert plain.fingerprint != named.fingerprint
    assert (named.device, named.needs().gpus, named.options.precision) == ("cuda", 1, "bfloat16")
    with pytest.raises(WorkerEnvironmentError, match=r"its GPU is 'none'; the run is on cuda \(NVIDIA H200\)"):
        named.compute(next(iter(named.grids()[0])), None)


def test_a_worker_with_another_gpu_than_the_named_one_refuses(tmp_path, monkeypatch):
    """The name in the run file is compared; it is no part of the fingerprint, since the bytes are measured."""
    monkeypatch.setattr("pipeline.inference.runtime.gpu_name", lambda: "NVIDIA A100")
    named, other = (
        Run.open(small_run(tmp_path), ["inference.device=cuda", f"inference.gpu={name}"]).stages[0]
        for name in ("NVIDIA H200", "NVIDIA A100")
    )
    assert named.fingerprint == other.fingerprint
    with pytest.raises(WorkerEnvironmentError, match=r"its GPU is 'NVIDIA A100'; the run is on cuda \(NVIDIA H200\)"):
        named.compute(next(iter(named.grids()[0])), None)
