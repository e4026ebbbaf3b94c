"""The job scripts of a run, as text."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.clusters.base import Submission, cluster_folder, worker_shapes
from pipeline.clusters.slurm import names, scripts
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape, seconds_of
from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from tests.deploy.slurm import ROOT, sbatch_lines

TLS = Tls.at(Path("/home/ada/private tls"))


def submission(run_url: str = "/data/runs/first", setup: str = "", **cluster: object) -> Submission:
    data = {"run_directory": run_url, "input": {"affinities": "a.zarr"}, "cluster": cluster}
    return Submission(run_url, parse_config(data), setup=setup)


def worker(given: Submission, pool: str = "general", **options: object) -> str:
    shape = worker_shapes(given.config.cluster)[pool]
    asked: dict[str, Any] = {"address": "tls://n:1", "first": 0, "tasks": 1, "tls": TLS, **options}
    return scripts.worker_script(pool, shape, given, **asked)


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
    ("shape", "wanted"),
    [
        ({}, {"gres": "gpu:1"}),
        ({"options": ["--gres=gpu:a100:1"]}, {"gres": "gpu:a100:1"}),
        ({"options": ["--gpus=1", "--constraint=a100"]}, {"gpus": "1", "constraint": "a100"}),
        ({"options": ["--gres=lustre:1", "--gres-flags=enforce-binding"]}, {"gres": "lustre:1"}),
        ({"gpus_per_node": 4}, {"gpus-per-node": "4"}),
        ({"gpus_per_node": 4, "options": ["--gpus-per-node=a100:4"]}, {"gpus-per-node": "a100:4"}),
        ({"gpus_per_node": 2, "options": ["--gres=gpu:h100:2"]}, {"gres": "gpu:h100:2"}),
    ],
)
def test_gpu_workers_ask_for_gpus_in_the_way_of_the_site(shape: dict[str, Any], wanted: dict[str, str]) -> None:
    """GPU workers ask for their GPUs unless the shape's options ask for some in the site's own way."""
    given = submission(inference_workers={"gpus": 1, "queue": "gpu", **shape})
    lines = sbatch_lines(worker(given, "inference"))
    assert lines.items() >= wanted.items()
    assert {"gres", "gpus", "gpus-per-node"} & set(lines) == {"gres", "gpus", "gpus-per-node"} & set(wanted)
    assert not {"gres", "gpus-per-node"} & set(sbatch_lines(worker(given, "general")))


def test_a_job_with_all_gpus_of_a_node_is_as_large_as_its_workers_together() -> None:
    """Cores and memory are those of one worker, times the workers of a job; each worker keeps its own limit."""
    given = submission(inference_workers={"gpus_per_node": 4, "cpus": 3, "memory_gb": 2.0, "count": 8})
    script = worker(given, "inference")
    lines = sbatch_lines(script)
    assert (lines["cpus-per-task"], lines["mem"], lines["nodes"]) == ("12", "7630M", "1")
    assert "--memory-limit 1812MiB" in script


@pytest.mark.parametrize(
    ("devices", "seen"), [("2,5", ["w-0 2", "w-1 5"]), ("MIG-a,MIG-b,MIG-c", ["w-0 MIG-a", "w-1 MIG-b"])]
)
def test_each_worker_of_a_job_sees_one_gpu(devices: str, seen: list[str]) -> None:
    """The GPUs that SLURM gave to a job are dealt out to its workers, one each, by whatever names they have."""
    done = start_of_each_gpu(devices, "exit 0")
    assert (sorted(done.stdout.splitlines()), done.returncode) == (seen, 0)


@pytest.mark.parametrize("devices", ["", "0"])
def test_a_job_with_too_few_gpus_fails_with_what_it_got(devices: str) -> None:
    """Two workers never share a GPU silently."""
    done = start_of_each_gpu(devices, "exit 0")
    assert (done.stdout, done.returncode) == ("", 1)
    assert f"CUDA_VISIBLE_DEVICES of this job is '{devices}', and 2 GPUs are needed" in done.stderr


def test_a_job_ends_after_its_last_worker_with_the_status_of_one_that_failed() -> None:
    """A worker that fails ends no other, and its status is that of the job."""
    done = start_of_each_gpu("0,1", 'if [ "$2" = w-0 ]; then exit 3; fi; sleep 0.3; echo late')
    assert (done.stdout.splitlines()[-1], done.returncode) == ("late", 3)


def start_of_each_gpu(devices: str, then: str) -> subprocess.CompletedProcess[str]:
    """Run the lines that start two workers, each of which is a shell that prints its name and its GPU."""
    say = f'echo "$2 $CUDA_VISIBLE_DEVICES"; {then}'
    begin = f"set -eu\nworker=w\ncommand=(bash -c {shlex.quote(say)} x)\n"
    lines = begin + scripts.WORKER_OF_EACH_GPU.format(workers=2, last=1)
    environment = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": devices}
    return subprocess.run(["bash", "-c", lines], env=environment, capture_output=True, text=True)


EVERY_KEY = {
    **{"queue": "q", "account": "a", "qos": "long", "constraint": "a100&nvlink", "reservation": "course"},
    **{
        "nodelist": "n[7-9]",
        "exclude": "n1",
        "licenses": "matlab:1",
        "tmp_gb": 2.0,
        "comment": "mouse 7",
        "wckey": "k",
    },
}
EVERY_LINE = {
    **{"partition": "q", "account": "a", "qos": "long", "constraint": "'a100&nvlink'", "reservation": "course"},
    **{"nodelist": "'n[7-9]'", "exclude": "n1", "licenses": "matlab:1", "tmp": "1908M", "comment": "'mouse 7'"},
    "wckey": "k",
}


def test_keys_of_the_cluster_hold_for_every_job_and_each_job_replaces_them() -> None:
    """A key of ``cluster`` is that of driver and workers; one of a driver or worker table wins over it."""
    given = submission(**EVERY_KEY)
    for script in (scripts.driver_script(given), worker(given)):
        assert sbatch_lines(script).items() >= EVERY_LINE.items()
    given = submission(queue="x", qos="y", options=["--nice=1"], driver=EVERY_KEY, workers={"options": ["--nice=2"]})
    assert sbatch_lines(scripts.driver_script(given)).items() >= {**EVERY_LINE, "nice": "1"}.items()
    lines = sbatch_lines(worker(given))
    assert (lines["partition"], lines["qos"], lines["nice"]) == ("x", "y", "2")
    assert not {"comment", "wckey", "licenses", "tmp", "exclude"} & set(lines)


def test_mail_is_about_the_driver_alone() -> None:
    """SLURM writes about the driver's job; a thousand workers that come and go are no news."""
    given = submission(driver={"mail_user": "ada@lab.org", "mail_type": ["END", "TIME_LIMIT_90"]})
    lines = sbatch_lines(scripts.driver_script(given))
    assert (lines["mail-user"], lines["mail-type"]) == ("ada@lab.org", "END,TIME_LIMIT_90")
    assert not {"mail-user", "mail-type"} & set(sbatch_lines(worker(given)))
    assert sbatch_lines(scripts.driver_script(submission(driver={"mail_user": "ada"})))["mail-type"] == "END,FAIL"
    assert "mail-type" not in sbatch_lines(scripts.driver_script(submission(driver={"mail_type": ["END"]})))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"driver": {"mail_user": "ada@lab.org", "mail_type": ["DAILY"]}}, r"mail_type.0 is \"DAILY\""),
        ({"driver": {"mail_user": "-x"}}, r"mail_user: \"-x\" is no name; write letters"),
        ({"workers": {"gpus_per_node": 4, "gpus": 0}}, r"gpus_per_node is 4, but gpus is 0"),
        ({"ports": "40000-40002"}, r"no range of at least 4 ports"),
        ({"ports": "80-90"}, r"between 1024 and 65535"),
        ({"options": ["--export=ALL,LD_PRELOAD=x"]}, r"--export is not an option that a run file may set"),
        ({"options": ["--exp=ALL"]}, r"--exp is not an option"),
        ({"options": ["--output=/home/ada/.bashrc"]}, r"--output is not an option"),
        ({"options": ["-C a100"]}, r"no option of sbatch in its long form"),
        ({"options": ["--nice=1\n--wrap=id"]}, r"line break"),
    ],
)
def test_what_no_job_can_ask_for_is_refused_with_a_remedy(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        submission(**tables)


def test_many_workers_are_one_array() -> None:
    """A thousand jobs are one array, each task with a worker's name and a log of its own; one job is no array."""
    given = submission(workers={"count": 1000, "array_limit": 50})
    script = worker(given, first=7, tasks=1000)
    assert sbatch_lines(script)["array"] == "0-999%50"
    assert sbatch_lines(script)["output"].endswith("worker-general-%A_%a.log")
    (line,) = (line for line in script.splitlines() if line.startswith("worker="))
    for task, number in (({"SLURM_ARRAY_TASK_ID": "5"}, 12), ({}, 7)):
        said = subprocess.run(["bash", "-uc", f'{line}; echo "$worker"'], env=task, capture_output=True, text=True)
        assert said.stdout == f"{names.job_name('/data/runs/first', 'general')}-{number}\n"
    alone = sbatch_lines(worker(given))
    assert "array" not in alone
    assert alone["output"].endswith("worker-general-%j.log")


def test_workers_listen_on_the_ports_of_the_firewall() -> None:
    assert "--worker-port 40000:40100 --nanny-port 40000:40100" in worker(submission(ports="40000-40100"))
    assert "-port" not in worker(submission())


def test_nodes_to_avoid_join_those_that_the_shape_excludes() -> None:
    """Nodes to avoid are added to those that the shape's ``--exclude`` names already."""
    given = submission(exclude="n0", workers={"options": ["--exclude=n1", "--qos=long"]})
    lines = sbatch_lines(worker(given, avoid=["n7", "n8"]))
    assert (lines["exclude"], lines["qos"]) == ("n0,n1,n7,n8", "long")


def test_jobs_of_a_run_are_found_by_name_and_those_of_another_run_are_not() -> None:
    """The jobs of a run share a name prefix that no other run has, so that cancelling finds them and no others."""
    given = submission()
    found = {sbatch_lines(text)["job-name"] for text in (scripts.driver_script(given), worker(given))}
    prefix = names.job_prefix("/data/runs/first")
    assert found == {f"{prefix}driver", f"{prefix}general"}
    assert re.fullmatch(r"first\.petaseg-[0-9a-f]{8}-", prefix)
    assert prefix != names.job_prefix("/data/runs/second")
    assert prefix != names.job_prefix("/other/runs/first")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/mouse V1 (left)/", "mouse-V1-left"),
        ("s3://bucket/run", "run"),
        ("/data/$(id),--x", "id-x"),
        ("/data/%j", "j"),
        ("/data/マウス", "run"),
        ("/data/" + "long" * 20, "longlonglonglonglonglonglonglo"),
    ],
)
def test_a_job_begins_with_the_name_of_its_run(url: str, name: str) -> None:
    """``squeue`` shows first what a run is called, in letters that every command of SLURM takes as they are."""
    assert names.job_name(url, "driver").startswith(f"{name}.petaseg-")


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
