"""Which clusters a process counts as its own, and when it stops to."""

import time
from datetime import timedelta

import pytest

from autoscaler.leases import LEASE, MARGIN, Leases, elapsed
from autoscaler.ledger import LedgerUnavailable, MemoryLedger
from tests.fakes import Clock, FlakyLedger

LOST = LedgerUnavailable("the ledger cannot be used: locked", "find the process that holds it")


class Process:
    """Leases over a ledger, with a stopwatch that a test turns along with the ledger's clock."""

    def __init__(self, holder: str, memory: MemoryLedger, clock: Clock) -> None:
        self.ledger = FlakyLedger(memory)
        self.leases = Leases(self.ledger, holder, timer=lambda: clock().timestamp())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock=clock)


@pytest.fixture
def process(memory: MemoryLedger, clock: Clock) -> Process:
    return Process("a", memory, clock)


def test_nothing_is_held_before_the_first_renewal(process: Process) -> None:
    assert process.leases.held() == frozenset()


def test_what_was_renewed_is_held_for_a_little_less_than_the_lease(process: Process, clock: Clock) -> None:
    process.leases.renew({"C1", "C2"})
    clock.now += LEASE - MARGIN - timedelta(milliseconds=1)
    assert process.leases.held() == {"C1", "C2"}
    clock.now += timedelta(milliseconds=1)
    assert process.leases.held() == frozenset()


def test_a_machine_that_was_suspended_counts_on_nothing_it_held() -> None:
    """The stopwatch goes on meanwhile, where the system has such a one."""
    assert elapsed() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1)


def test_the_time_counts_from_the_asking_not_from_the_answer(process: Process, clock: Clock) -> None:
    process.ledger.before["lease"] = lambda: clock.advance(seconds=10)
    process.leases.renew({"C1"})
    assert process.leases.held() == {"C1"}
    clock.advance(seconds=2)
    assert process.leases.held() == frozenset()


def test_a_renewal_that_fails_leaves_what_is_held_until_its_time_is_over(process: Process, clock: Clock) -> None:
    process.leases.renew({"C1"})
    clock.advance(seconds=5)
    process.ledger.fail("lease", LOST)
    with pytest.raises(LedgerUnavailable):
        process.leases.renew({"C1"})
    assert process.leases.held() == {"C1"}
    clock.advance(seconds=7)
    assert process.leases.held() == frozenset()


def test_another_process_has_them_only_after_the_first_has_stopped_to_count_on_them(
    process: Process, memory: MemoryLedger, clock: Clock
) -> None:
    other = Process("b", memory, clock)
    process.leases.renew({"C1"})
    for _ in range(20):
        other.leases.renew({"C1"})
        assert not (process.leases.held() and other.leases.held())
        clock.advance(seconds=1)
    assert other.leases.held() == {"C1"}


def test_a_cluster_with_a_purchase_in_hand_is_not_given_up(
    process: Process, memory: MemoryLedger, clock: Clock
) -> None:
    other = Process("b", memory, clock)
    process.leases.renew({"C1", "C2"})
    for _ in range(3):
        other.leases.renew({"C1", "C2"})
        process.leases.renew({"C1", "C2"}, keep={"C2"})
    assert (process.leases.held(), other.leases.held()) == ({"C2"}, {"C1"})


def test_what_is_released_is_free_at_once_and_never_taken_again(
    process: Process, memory: MemoryLedger, clock: Clock
) -> None:
    other = Process("b", memory, clock)
    process.leases.renew({"C1"})
    process.leases.release()
    process.leases.renew({"C1"})  # a renewal that was on its way
    assert process.leases.held() == frozenset()
    other.leases.renew({"C1"})
    assert other.leases.held() == {"C1"}
