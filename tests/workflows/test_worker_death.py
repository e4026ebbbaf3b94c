"""Workers that die at random moments change no byte, and cost only the chunks that they were computing."""

import random
import signal
import threading
import time

import psutil
import pytest

from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from tests.runs import real_affinities, results, run, write_run, write_volume

CHUNK = [12, 15, 14]
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK}
KILLS = 10


class Killer(threading.Thread):
    """A thread that kills a random worker process of this process's Dask cluster, again and again."""

    def __init__(self, kills, seed):
        super().__init__(daemon=True)
        self.left, self.dice, self.over = kills, random.Random(seed), threading.Event()

    def run(self):
        while self.left and not self.over.wait(self.dice.uniform(0.1, 0.5)):
            workers = [p for p in psutil.Process().children(recursive=True) if is_worker(p)]
            if workers:
                self.dice.choice(workers).send_signal(signal.SIGKILL)
                self.left -= 1

    def stop(self):
        self.over.set()
        self.join()


def is_worker(process):
    try:
        return "spawn_main" in " ".join(process.cmdline()) and time.time() - process.create_time() > 2
    except psutil.Error:
        return False


@pytest.mark.slow
def test_ten_killed_workers_change_nothing(tmp_path, shared_data):
    """A run whose workers are killed at random moments, up to ten times, completes and gives the same bytes."""
    affinities = write_volume(tmp_path / "affinities.zarr", real_affinities(shared_data))
    reference = results(run(write_run(tmp_path / "calm", input={"affinities": affinities}, **TABLES)))
    execution = {"executor": "dask", "workers": 3, "attempts": 10, "backoff_seconds": 0}
    file = write_run(tmp_path / "deadly", input={"affinities": affinities}, execution=execution, **TABLES)
    killer = Killer(KILLS, seed=5)
    killer.start()
    try:
        finished = run(file)
    finally:
        killer.stop()
    assert killer.left < KILLS, "no worker was killed: the test proves nothing"
    assert results(finished) == reference
    assert all(stage.complete for stage in read_status(Run.open(file)))
