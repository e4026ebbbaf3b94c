"""One driver works on a run: its lease is kept while it lives, and taken over once it is dead."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context

import psutil
import pytest

from pipeline.errors import LeaseError, StorageError
from pipeline.runs.lease import KEY, Holder, Lease, LeaseRecord, read_lease
from pipeline.storage import ObjectStore

ELSEWHERE = Holder("far.away", 1, 0.0)
HOLD = """
import sys, time
from pipeline.runs.lease import Lease
from pipeline.storage import ObjectStore
with Lease(ObjectStore(sys.argv[1]), seconds=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path):
    return ObjectStore(tmp_path / "run")


@pytest.fixture
def holding(store):
    """A real process that holds a lease of 0.8 s and renews it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.url, "0.8"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def leave(store, holder, **changes):
    """Store a lease whose holder renews nothing."""
    store.put(KEY, replace(LeaseRecord(holder, "one beat", time.time()), **changes).encode())


def pretend_elsewhere(store):
    """Let the stored lease look as if its holder were on another machine."""
    data = json.loads(store.get(KEY))
    data["holder"]["host"] = "far.away"
    return json.dumps(data).encode()


def test_a_lease_is_taken_renewed_and_given_back(store):
    with Lease(store, seconds=0.4) as lease:
        first = read_lease(store)
        assert first.holder == Holder.here()
        assert not first.released
        time.sleep(0.5)
        assert read_lease(store).beat != first.beat
        lease.may_write()
    assert read_lease(store).released
    with Lease(store, seconds=60, sleep=lambda _: pytest.fail("it waited")):
        assert not read_lease(store).released


def test_a_second_driver_on_this_machine_is_refused_at_once(store, holding):
    with (
        pytest.raises(LeaseError, match=rf"process {holding.pid} on .* works on .*petaseg status"),
        Lease(store, seconds=60),
    ):
        pass


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_at_once(store, holding):
    holding.send_signal(signal.SIGKILL)
    holding.wait()
    with Lease(store, seconds=60, sleep=lambda _: pytest.fail("it waited")):
        assert read_lease(store).holder.pid == os.getpid()


def test_a_holder_elsewhere_that_beats_is_seen_to_live(store, holding, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "another.machine")
    with pytest.raises(LeaseError, match="works on"), Lease(store, seconds=5):
        pass


def test_a_silent_holder_elsewhere_is_replaced_after_the_lease_time(store):
    leave(store, ELSEWHERE)
    began = time.monotonic()
    with Lease(store, seconds=0.6):
        assert read_lease(store).holder == Holder.here()
    assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize("record", [b"", b"{", b'{"holder": {"host": 1}}', b"[]"])
def test_a_damaged_lease_is_taken_after_the_lease_time(store, record):
    """The holder of a lease that cannot be read may live, so another driver waits the whole lease time."""
    store.put(KEY, record)
    assert read_lease(store).damaged
    began = time.monotonic()
    with Lease(store, seconds=0.4):
        assert read_lease(store).holder == Holder.here()
    assert time.monotonic() - began >= 0.4


def test_a_damaged_lease_that_changes_has_a_holder_that_lives(store):
    """A driver that finds a damaged lease is refused if somebody writes to it meanwhile."""
    store.put(KEY, b"{")
    with pytest.raises(LeaseError, match=r"an unknown driver \(lease.json is damaged\) works on"):
        Lease(store, seconds=5, sleep=lambda _: store.put(KEY, b"{{")).acquire()


def of_another_petaseg(store, **fields):
    """Give the stored lease fields that this petaseg does not write, or another version."""
    store.put(KEY, json.dumps({**json.loads(store.get(KEY)), **fields}).encode())


def test_a_live_lease_with_an_unknown_field_is_never_taken(store):
    """A field that this version does not know hides no holder: one that beats refuses another driver."""
    leave(store, ELSEWHERE)
    of_another_petaseg(store, queue="long")
    assert read_lease(store).holder == ELSEWHERE
    beats = iter(range(100))
    with pytest.raises(LeaseError, match=r"process 1 on far\.away works on"):
        Lease(store, seconds=5, sleep=lambda _: of_another_petaseg(store, beat=f"beat {next(beats)}")).acquire()
    assert read_lease(store).holder == ELSEWHERE


@pytest.mark.parametrize("released", [False, True])
def test_the_lease_of_a_newer_petaseg_is_refused_at_once(store, released):
    """A lease of a newer format is never taken, whether its holder is silent or has released it."""
    leave(store, ELSEWHERE, released=released)
    of_another_petaseg(store, version=2, holder="whoever")
    before = store.get(KEY)
    with pytest.raises(
        LeaseError, match=r"lease.json was written by a newer petaseg \(format 2; this one reads up to 1"
    ):
        Lease(store, seconds=0, sleep=lambda _: pytest.fail("it waited")).acquire()
    assert store.get(KEY) == before


def test_a_newer_petaseg_that_took_over_stops_driver_and_workers(store):
    """A driver and its workers stop when the lease is of a newer petaseg; the driver does not release it."""
    with Lease(store, seconds=60) as lease:
        of_another_petaseg(store, version=2)
        with pytest.raises(LeaseError, match="newer petaseg"):
            lease.fence.may_write()
        lease.renew()
        with pytest.raises(LeaseError, match="another driver has taken over"):
            lease.may_write()
    assert json.loads(store.get(KEY))["version"] == 2


def test_a_process_number_that_was_given_again_is_not_the_holder(store):
    here = Holder.here()
    parent = psutil.Process().parent()
    leave(store, replace(here, pid=parent.pid, started=parent.create_time() - 1000))
    with Lease(store, seconds=60, sleep=lambda _: pytest.fail("it waited")):
        assert read_lease(store).holder == here


def test_an_earlier_start_of_the_same_cluster_job_is_dead(store, monkeypatch):
    leave(store, replace(ELSEWHERE, job="slurm 17", start=0))
    monkeypatch.setenv("PETASEG_JOB", "slurm 17")
    monkeypatch.setenv("PETASEG_JOB_START", "1")
    with Lease(store, seconds=60, sleep=lambda _: pytest.fail("it waited")):
        assert read_lease(store).holder.start == 1


def test_a_driver_that_was_cut_off_stops_before_it_writes(store):
    with Lease(store, seconds=60) as lease:
        lease.may_write()
        leave(store, ELSEWHERE)  # another driver took over
        lease.renew()
        with pytest.raises(LeaseError, match="another driver has taken over"):
            lease.may_write()
    assert read_lease(store).holder == ELSEWHERE, "what the other holds was not released"


def test_a_driver_that_is_dead_but_not_yet_buried_holds_nothing(store):
    """A killed driver whose exit status nobody has collected (a zombie) counts as dead."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = Holder(Holder.here().host, process.pid, psutil.Process(process.pid).create_time())
    assert not holder.is_surely_dead()
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert holder.is_surely_dead()
    process.communicate()
    assert holder.is_surely_dead()


class StoreWithLostReplies(ObjectStore):
    """A store that carries out every conditional write and, while ``deaf``, reports a failure."""

    deaf = False

    def put_if(self, key, data, version):
        written = super().put_if(key, data, version)
        if self.deaf:
            raise StorageError("no answer")
        return written


def test_a_beat_whose_reply_was_lost_is_no_other_driver(tmp_path):
    """A renewal or release whose reply was lost is recognised as one's own, and the driver keeps its lease."""
    store = StoreWithLostReplies(tmp_path / "run")
    lease = Lease(store, seconds=60)
    lease.acquire()
    store.deaf = True
    with pytest.raises(StorageError):
        lease.renew()
    store.deaf = False
    lease.renew()
    lease.may_write()
    store.deaf = True
    with pytest.raises(StorageError):
        lease.renew()
    store.deaf = False
    lease.release()
    assert read_lease(store).released


def test_a_driver_that_slept_too_long_asks_before_it_writes(store):
    lease = Lease(store, seconds=0.1)
    lease.acquire()
    leave(store, ELSEWHERE)
    time.sleep(0.1)
    with pytest.raises(LeaseError, match="another driver has taken over"):
        lease.may_write()


def take(url, barrier, won):
    lease = Lease(ObjectStore(url), seconds=30)
    barrier.wait()
    with suppress(LeaseError):
        lease.acquire()
        won.put(os.getpid())
    barrier.wait()  # the winner lives until all have tried, since a dead one's lease is taken over


def test_of_many_that_are_fast_one_wins(store):
    leave(store, ELSEWHERE, released=True)
    context = get_context("spawn")
    barrier, won = context.Barrier(6), context.Queue()
    racers = [context.Process(target=take, args=(store.url, barrier, won)) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winners = [won.get(timeout=5)]
    assert won.empty()
    assert read_lease(store).holder.pid == winners[0]


def test_a_worker_may_write_until_another_driver_has_followed_its_own(store):
    """A worker may write until another driver holds the lease; after that its fence raises an error."""
    first, second = Lease(store, seconds=60), Lease(store, seconds=60)
    first.fence.may_write()
    first.acquire()
    first.renew()
    first.fence.may_write()
    first.release()
    first.fence.may_write()
    second.acquire()
    second.fence.may_write()
    with pytest.raises(LeaseError, match="whose time is over"):
        first.fence.may_write()


def test_a_fence_travels_to_workers(store):
    lease = Lease(store, seconds=60)
    lease.acquire()
    sent = pickle.loads(pickle.dumps(lease.fence.may_write))
    sent()
    assert sent.__self__ == lease.fence
