"""A worker whose driver was followed by one with another configuration writes nothing."""

import pickle
import uuid

import pytest

from pipeline.errors import LeaseError
from pipeline.fence import Fence
from pipeline.storage import ObjectStore
from tests.ledgers import CHUNKS, record
from tests.ledgers import ledger as open_ledger


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return ObjectStore(tmp_path if request.param == "folder" else f"mem://{uuid.uuid4().hex}")


def fence_of(ledger):
    return Fence(ledger.store, ledger.stage, ledger.fingerprint)


def test_a_worker_may_write_before_anything_is_recorded_and_as_long_as_its_stage_goes_on(store):
    ledger = open_ledger(store, "A")
    fence_of(ledger).check()
    record(ledger, CHUNKS[:3])
    fence_of(ledger).check()
    ledger.compact()
    fence_of(ledger).check()


def test_a_worker_of_an_earlier_configuration_is_refused(store):
    """Would let it overwrite a chunk that is recorded as done under the present one."""
    old = fence_of(record(open_ledger(store, "A"), CHUNKS[:3]))
    new = fence_of(record(open_ledger(store, "B"), CHUNKS[:1]))
    new.check()
    with pytest.raises(LeaseError, match="another configuration"):
        old.check()
    record(open_ledger(store, "A"), CHUNKS[:1])
    old.check()


def test_a_fence_travels_to_workers(tmp_path):
    fence = Fence(ObjectStore(tmp_path), "toy", "A")
    assert pickle.loads(pickle.dumps(fence)) == fence
