"""The promises of every pool of workers, seen from the driver. Subclass ``WorkerPoolContract`` and give its fixture."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Protocol

import pytest

from pipeline.clusters.base import WorkerPool
from tests.deploy.slurm import wait_until


class Workplace(Protocol):
    """A pool that has no worker yet, and what the tests must be able to see and do around it."""

    pool: WorkerPool
    node: str
    """One of several nodes."""

    def workers(self) -> set[str]:
        """Names of the workers, or of their jobs, that run now."""
        ...

    def lose(self, worker: str) -> None:
        """Take a worker away, as its node or its cluster does."""
        ...


class WorkerPoolContract:
    """The fixture ``workplace`` has room for two workers."""

    @pytest.fixture
    def workplace(self) -> Iterator[Workplace]:
        """A new pool."""
        raise NotImplementedError

    def test_a_new_pool_has_an_address_and_no_worker(self, workplace: Workplace) -> None:
        """A scheduler listens before the first worker comes, and there is hope."""
        assert listens(workplace.pool.address)
        assert workplace.pool.problem == ""
        assert not workplace.workers()

    def test_it_is_scaled_up_and_down_and_up_again(self, workplace: Workplace) -> None:
        """``scale`` starts and ends workers until there are so many; 0 ends all, and the pool can be used again."""
        for wanted in (1, 2, 0, 1):
            workplace.pool.scale(wanted)
            wait_until(lambda wanted=wanted: len(workplace.workers()) == wanted, f"{wanted} workers")
        assert listens(workplace.pool.address)

    def test_a_lost_worker_is_replaced(self, workplace: Workplace) -> None:
        """A worker that is lost is replaced without being asked for again."""
        workplace.pool.scale(2)
        wait_until(lambda: len(workplace.workers()) == 2, "2 workers")
        before = workplace.workers()
        workplace.lose(min(before))
        wait_until(lambda: len(workplace.workers()) == 2 and workplace.workers() != before, "another worker")
        assert workplace.pool.problem == ""

    def test_a_node_may_be_avoided_before_there_are_workers(self, workplace: Workplace) -> None:
        """When one node is avoided, others still get workers."""
        workplace.pool.avoid(workplace.node)
        workplace.pool.scale(1)
        wait_until(lambda: len(workplace.workers()) == 1, "1 worker")

    def test_closing_ends_workers_and_scheduler(self, workplace: Workplace) -> None:
        """After ``close`` no worker is left and nothing listens at the address; a second call does nothing."""
        workplace.pool.scale(1)
        wait_until(lambda: len(workplace.workers()) == 1, "1 worker")
        address = workplace.pool.address
        workplace.pool.close()
        workplace.pool.close()
        wait_until(lambda: not workplace.workers(), "no worker")
        assert not listens(address)


def listens(address: str) -> bool:
    """True if something accepts connections at ``protocol://host:port``."""
    host, _, port = address.partition("://")[2].rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0
