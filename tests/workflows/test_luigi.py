"""Luigi orders the stages, both from its own command and under a central scheduler."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.runs import petaseg, real_affinities, write_run, write_volume


@pytest.fixture
def file(tmp_path, shared_data):
    affinities = write_volume(tmp_path / "affinities.zarr", real_affinities(shared_data, (24, 30, 30)))
    return write_run(tmp_path, input={"affinities": affinities}, chunk_shape=[64, 64, 64])


def test_luigis_own_command_runs_the_chain(file):
    """Luigi's own command runs the whole chain of stages."""
    luigi = str(Path(sys.executable).with_name("luigi"))
    command = [luigi, "--module", "workflows.segment", "Segment", "--config", str(file), "--local-scheduler"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    assert petaseg("status", file).returncode == 0


def test_a_central_scheduler_shows_the_stages(file, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    luigid = str(Path(sys.executable).with_name("luigid"))
    state = ["--state-path", str(tmp_path / "state")]
    server = subprocess.Popen(
        [luigid, "--address", "127.0.0.1", "--port", str(port), *state],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        done = petaseg("run", file, "--quiet", "--luigid", url)
        assert done.returncode == 0, done.stderr
        tasks = json.load(urllib.request.urlopen(f"{url}/api/task_list?data=" + "%7B%22status%22%3A%22DONE%22%7D"))
        assert "petaseg.Agglomerate" in str(tasks)
    finally:
        server.terminate()
        server.wait()


def wait_for(url, seconds=30):
    end = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(f"{url}/api/graph").close()
        except OSError:
            assert time.monotonic() < end, "luigid did not start"
            time.sleep(0.1)
