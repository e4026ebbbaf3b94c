"""The job scripts of a run, as text."""

import re
import subprocess
from pathlib import Path

import pytest

from pipeline.clusters.base import Submission, cluster_folder, worker_shapes
from pipeline.clusters.slurm import scripts as scripts
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape, seconds_of
from pipeline.config.reading import parse_config
from tests.deploy.slurm import ROOT, sbatch_lines

TLS = Tls.at(Path("/home/ada/private tls"))


def submission(run_url: str = "/data/runs/first", setup: str = "", **cluster: object) -> Submission:
    data = {"run_directory": run_url, "input": {"affinities": "a.zarr"}, "cluster": cluster}
    return Submission(run_url, parse_config(data), setup=setup)


def worker(given: Submission, pool: str = "general", **options: object) -> str:
    shape = worker_shapes(given.config.cluster)[pool]
    return scripts.worker_script(pool, shape, given, address="tls://n:1", worker="w", tls=TLS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("setup", ["", "module load cuda\nexport A='it''s'"])
@pytest.mark.parametrize("url", ["/data/runs/first", "/data/my runs/it's 100%", "s3://bucket/run"])
def test_scripts_are_valid_bash(setup: str, url: str) -> None:
    """Scripts are valid bash also when paths or setup lines hold blanks, quotes or percent signs."""
    given = submission(url, setup)
    for script in (scripts.driver_script(given), worker(given)):
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert script.startswith("#!/bin/bash\n#SBATCH ")
        assert {"set -eo pipefail", "set -u"} <= set(script.splitlines())
        assert "PYTHONSAFEPATH=1" in script


def test_a_driver_can_be_queued_again_and_hears_of_its_walltime() -> None:
    """The driver's script can be requeued, appends to its log, and gets a signal 120 s before its walltime."""
    table = {"queue": "long", "account": "em", "driver": {"walltime": "1-00:00:00", "cpus": 2, "memory_gb": 8.0}}
    lines = sbatch_lines(scripts.driver_script(submission(**table)))
    assert {"requeue", "open-mode", "signal"} <= set(lines)
    assert (lines["signal"], lines["open-mode"]) == ("B:USR1@120", "append")
    assert (lines["partition"], lines["account"], lines["time"]) == ("long", "em", "1-00:00:00")
    assert (lines["cpus-per-task"], lines["mem"]) == ("2", "7630M")


def test_a_driver_says_which_job_it_is_and_how_often_that_was_started() -> None:
    """The driver's script tells its lease the job's number and restarts, and a script by hand does the same."""
    by_hand = (ROOT / "deploy" / "slurm" / "driver.sbatch").read_text()
    for script in (scripts.driver_script(submission()), by_hand):
        (line,) = (line for line in script.splitlines() if "PETASEG_JOB" in line)
        for restarts, start in (({"SLURM_RESTART_COUNT": "2"}, "2"), ({}, "0")):
            said = subprocess.run(
                ["bash", "-uc", f'{line}\necho "$PETASEG_JOB, $PETASEG_JOB_START"'],
                env={"SLURM_JOB_ID": "17", **restarts},
                capture_output=True,
                text=True,
                check=True,
            )
            assert said.stdout == f"slurm 17, {start}\n"


def test_a_worker_gets_what_its_shape_says() -> None:
    """A worker's script asks SLURM for the cores, memory, walltime and partition of its shape in the run file."""
    shape = {"cpus": 4, "memory_gb": 2.0, "threads": 3, "walltime": "02:00:00", "queue": "short"}
    script = worker(submission(queue="long", interface="ib0", workers=shape))
    lines = sbatch_lines(script)
    assert (lines["partition"], lines["time"], lines["cpus-per-task"]) == ("short", "02:00:00", "4")
    assert lines["mem"] == "1908M"
    assert "gres" not in lines
    assert "no-requeue" in lines  # the driver replaces a lost worker
    for part in ("--nthreads 3", "--memory-limit 1812MiB", "--interface ib0", "--dashboard-address 127.0.0.1:0"):
        assert part in script


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {"gres": "gpu:1"}),
        (["--gres=gpu:a100:1"], {"gres": "gpu:a100:1"}),
        (["--gpus=1", "--constraint=a100"], {"gpus": "1", "constraint": "a100"}),
    ],
)
def test_gpu_workers_ask_for_one_gpu_in_the_way_of_the_site(options: list[str], wanted: dict[str, str]) -> None:
    """GPU workers ask for ``--gres=gpu:1`` unless the shape's options ask for a GPU in the site's own way."""
    shape = {"gpus": 1, "queue": "gpu", "options": options}
    given = submission(inference_workers=shape)
    lines = sbatch_lines(worker(given, "inference"))
    assert lines.items() >= wanted.items()
    assert ("gres" in lines) == ("gres" in wanted)
    assert "gres" not in sbatch_lines(worker(given, "general"))


def test_nodes_to_avoid_join_those_that_the_shape_excludes() -> None:
    """Nodes to avoid are added to those that the shape's ``--exclude`` names already."""
    given = submission(workers={"options": ["--exclude=n1", "--qos=long"]})
    lines = sbatch_lines(worker(given, avoid=["n7", "n8"]))
    assert (lines["exclude"], lines["qos"]) == ("n1,n7,n8", "long")


def test_jobs_of_a_run_are_found_by_name_and_those_of_another_run_are_not() -> None:
    """The jobs of a run share a name prefix that no other run has, so that cancelling finds them and no others."""
    names = {
        sbatch_lines(text)["job-name"]
        for given in (submission(),)
        for text in (scripts.driver_script(given), worker(given))
    }
    prefix = scripts.job_prefix("/data/runs/first")
    assert names == {f"{prefix}driver", f"{prefix}general"}
    assert re.fullmatch(r"petaseg-[0-9a-f]{8}-", prefix)
    assert prefix != scripts.job_prefix("/data/runs/second")


def test_secrets_stay_out_of_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts hold no credentials, and no command line holds the path of the TLS key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    given = submission("s3://bucket/run")
    for script in (scripts.driver_script(given), worker(given)):
        assert "hush" not in script
    command = worker(given).splitlines()[-1]
    assert str(TLS.key) not in command
    assert f"'{TLS.key}'" in worker(given)  # the path is in a variable of the environment


def test_logs_of_a_run_in_a_bucket_go_to_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SLURM writes logs into the run directory on a disk, and into the home directory for a run in a bucket."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster_folder("s3://bucket/run").is_relative_to(tmp_path)
    assert cluster_folder("/data/run") == Path("/data/run/cluster")
    assert cluster_folder("file:///data/run") == Path("/data/run/cluster")


def test_setup_lines_reach_the_workers_through_the_driver() -> None:
    """The driver's script passes the setup lines on to its workers, unchanged by quoting."""
    script = scripts.driver_script(submission(setup="true 'x y'\n"))
    lines = script.splitlines()
    setting = next(line for line in lines if line.startswith(f"export {scripts.SETUP_VARIABLE}="))
    end = lines.index("true 'x y'", lines.index(setting) + 2)
    told = subprocess.run(
        ["bash", "-c", "\n".join(lines[lines.index(setting) : end]) + f'\nprintf %s "${scripts.SETUP_VARIABLE}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "true 'x y'\n"


@pytest.mark.parametrize(
    ("walltime", "seconds", "drain"),
    [("0:01:00", 60, 30), ("04:00:00", 14400, 900), ("00:30:00", 1800, 180), ("2-01:02:03", 176523, 900)],
)
def test_workers_drain_before_their_walltime(walltime: str, seconds: int, drain: int) -> None:
    """Workers stop taking chunks some time before their walltime: 30 s for a minute, 900 s for hours."""
    assert seconds_of(walltime) == seconds
    assert scripts.drain_seconds(walltime) == drain
    script = worker(submission(workers=WorkerShape(walltime=walltime).model_dump(mode="json")))
    assert f"+ {seconds})) DASK_PETASEG__DRAIN_SECONDS={drain}" in script
