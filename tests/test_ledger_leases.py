"""Who holds which cluster, in every form of the ledger, while replicas come, stall, leave and die."""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.leases import LEASE
from tests.ledger_forms import Clock, Handles, Ledger, in_lists

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
RENEWAL = timedelta(seconds=5)


def clusters(number: int) -> list[str]:
    return [f"C{n}" for n in range(1, number + 1)]


def shares(ledger: Ledger) -> dict[str, int]:
    held = [lease.holder for lease in ledger.holders()]
    return {holder: held.count(holder) for holder in held}


# One lease


def test_a_lease_is_held_by_one_until_it_runs_out(ledger: Ledger, clock: Clock) -> None:
    assert ledger.lease("a", ["C1", "C2"], MINUTE) == {"C1", "C2"}
    assert ledger.lease("b", ["C2", "C3"], MINUTE) == {"C3"}
    clock.passes(30 * SECOND)
    assert ledger.lease("b", ["C2"], MINUTE) == frozenset()
    clock.passes(30 * SECOND)
    assert [lease.holder for lease in ledger.holders()] == []
    assert ledger.lease("b", ["C2"], MINUTE) == {"C2"}
    assert ledger.lease("a", ["C1", "C2"], MINUTE) == {"C1"}


def test_a_renewed_lease_holds_on(ledger: Ledger, clock: Clock) -> None:
    for _ in range(3):
        assert ledger.lease("a", ["C1"], MINUTE) == {"C1"}
        clock.passes(40 * SECOND)
    assert ledger.lease("b", ["C1"], MINUTE) == frozenset()


def test_a_dead_daemons_lease_does_not_outlive_it_by_what_the_clock_was_set_back(ledger: Ledger, clock: Clock) -> None:
    ledger.lease("a", ["C1"], MINUTE)
    clock.passes(-HOUR)
    assert ledger.lease("b", ["C1"], MINUTE) == {"C1"}


def test_a_living_daemon_keeps_its_lease_over_a_clock_set_back(ledger: Ledger, clock: Clock) -> None:
    ledger.lease("a", ["C1"], MINUTE)
    clock.passes(-HOUR)
    assert ledger.lease("a", ["C1"], MINUTE) == {"C1"}
    assert ledger.lease("b", ["C1"], MINUTE) == frozenset()


def test_a_fence_grows_with_each_change_of_holder(ledger: Ledger, clock: Clock) -> None:
    fences = []
    for holder in ("a", "a", "b", "a"):
        ledger.lease(holder, ["C1"], MINUTE)
        (lease,) = ledger.holders()
        fences.append((lease.holder, lease.fence))
        if holder == "b":
            ledger.release("b")
        else:
            clock.passes(MINUTE)
    assert fences == [("a", 1), ("a", 1), ("b", 2), ("a", 3)]


def test_leases_are_told_by_cluster_with_their_end(ledger: Ledger) -> None:
    ledger.lease("b", ["c-10", "C-9", "c-9"], MINUTE)
    ledger.lease("a", ["B-1"], 2 * MINUTE)
    told = ledger.holders()
    in_order = [("B-1", "a"), ("C-9", "b"), ("c-10", "b"), ("c-9", "b")]  # of bytes, not of a language
    assert [(lease.cluster_id, lease.holder) for lease in told] == in_order
    assert 50 * SECOND < told[0].expires_at - told[1].expires_at < 70 * SECOND


def test_released_leases_are_free_at_once(ledger: Ledger) -> None:
    ledger.lease("a", ["C1", "C2"], MINUTE)
    ledger.lease("b", ["C3"], MINUTE)
    ledger.release("a")
    assert [(lease.cluster_id, lease.holder) for lease in ledger.holders()] == [("C3", "b")]
    assert ledger.lease("b", ["C1", "C2", "C3"], MINUTE) == {"C1", "C2", "C3"}


def test_what_is_no_longer_asked_for_is_given_up(ledger: Ledger) -> None:
    ledger.lease("a", ["C1", "C2"], MINUTE)
    assert ledger.lease("a", ["C2"], MINUTE, keep=["C1"]) == {"C2"}
    assert ledger.lease("b", ["C1"], MINUTE) == {"C1"}
    assert ledger.lease("a", [], MINUTE) == frozenset()
    assert shares(ledger) == {"b": 1}


# Shares


@pytest.mark.parametrize(
    ("number", "replicas", "even"),
    [
        pytest.param(10, "ab", [5, 5], id="two share ten"),
        pytest.param(10, "abcd", [2, 2, 3, 3], id="four share ten"),
        pytest.param(2, "abc", [0, 1, 1], id="one of three has nothing to do"),
        pytest.param(0, "ab", [0, 0], id="there is nothing to share"),
    ],
)
def test_whoever_comes_gets_an_even_share(ledger: Ledger, number: int, replicas: str, even: list[int]) -> None:
    assert len(ledger.lease(replicas[0], clusters(number), MINUTE)) == number
    for _ in range(3):
        held = [ledger.lease(replica, clusters(number), MINUTE) for replica in replicas]
    assert sorted(map(len, held)) == even
    assert frozenset().union(*held) == set(clusters(number))


def test_what_has_a_purchase_in_hand_is_not_given_up(ledger: Ledger) -> None:
    busy = ["C1", "C3", "C4"]
    ledger.lease("a", clusters(4), MINUTE)
    assert ledger.lease("b", clusters(4), MINUTE) == frozenset()
    assert ledger.lease("a", clusters(4), MINUTE, keep=busy) == set(busy)
    assert ledger.lease("b", clusters(4), MINUTE, keep=["C3"]) == {"C2"}
    assert ledger.lease("a", clusters(4), MINUTE, keep=["C4"]) >= {"C4"}
    assert len(ledger.lease("b", clusters(4), MINUTE)) == 2


def test_nobody_is_shared_with_who_asks_for_other_clusters(ledger: Ledger) -> None:
    """Policies differ between replicas while they are rolled out: no cluster may be left to one that does not ask."""
    for _ in range(3):
        old, new = ledger.lease("old", clusters(4), MINUTE), ledger.lease("new", clusters(6), MINUTE)
        assert (old, new) == (set(clusters(4)), {"C5", "C6"})
    ledger.lease("old", clusters(6), MINUTE)  # reloaded
    for replica in ("new", "old", "new"):
        ledger.lease(replica, clusters(6), MINUTE)
    assert shares(ledger) == {"old": 3, "new": 3}


def test_of_many_that_ask_at_once_each_cluster_goes_to_one(handles: Handles) -> None:
    replicas, asked = "abcd", clusters(41)
    together = Barrier(len(replicas))

    def ask(replica: str) -> list[frozenset[str]]:
        ledger = handles[replicas.index(replica) % 2]
        answers = []
        for _ in range(12):
            together.wait(20)
            answers.append(ledger.lease(replica, asked, MINUTE))
        return answers

    with ThreadPoolExecutor(len(replicas)) as pool:
        rounds = list(zip(*pool.map(ask, replicas), strict=True))
    for held in rounds:
        assert sum(map(len, held)) == len(frozenset().union(*held)), "a cluster was held twice"
    for held in rounds[3:]:
        assert sorted(map(len, held)) == [10, 10, 10, 11]
        assert held == rounds[-1], "once balanced, nothing moves"


# Whole lives


@dataclass
class Fleet:
    """Replicas that ask every five seconds, and what each of them was told last."""

    ledger: Ledger
    clock: Clock
    asked: list[str]
    names: Iterator[str]
    told: dict[str, tuple[frozenset[str], datetime]] = field(default_factory=dict)  # until when it may count on it
    alive: list[str] = field(default_factory=list)

    def join(self) -> None:
        self.alive.append(next(self.names))

    def ask(self, replica: str) -> None:
        held = self.ledger.lease(replica, self.asked, LEASE)
        assert held <= set(self.asked)
        self.told[replica] = held, self.clock() + LEASE
        for other, (theirs, until) in self.told.items():
            assert other == replica or until <= self.clock() or not held & theirs, "a cluster is held by two"

    def round(self, without: Collection[str] = ()) -> list[frozenset[str]]:
        """What each holds once all have asked, one after the other within five seconds."""
        for replica in self.alive:
            if replica not in without:
                self.ask(replica)
        held = [self.told[replica][0] for replica in self.alive if replica in self.told]
        self.clock.passes(RENEWAL)
        return held

    def settles(self, rounds: int = 2) -> None:
        """After so many rounds all is held, evenly; after that nothing moves."""
        for _ in range(rounds):
            held = self.round()
        assert frozenset().union(*held) == set(self.asked), "a cluster is held by nobody"
        sizes = sorted(map(len, held))
        assert sizes[-1] - sizes[0] <= 1, "shares differ by more than one"
        assert self.round() == held, "it flaps"

    def leave(self, replica: str) -> None:
        self.ledger.release(replica)
        self.alive.remove(replica)
        self.told.pop(replica, None)

    def die(self, replica: str) -> None:
        """Its last sign of life was five seconds ago."""
        self.alive.remove(replica)
        for _ in range(3):
            held = self.round()
        assert frozenset().union(*held) == set(self.asked), "a lease after it, at the first renewal, all is taken"

    def stall(self, replica: str) -> None:
        """It is stopped for longer than a lease, and wakes."""
        for _ in range(4):
            self.round(without=[replica])


Event = tuple[str, int]
Story = tuple[int, int, list[Event]]
EVENTS = st.tuples(st.sampled_from(["join", "leave", "die", "stall", "reload"]), st.integers(0, 40))
STORIES = st.tuples(st.integers(0, 40), st.integers(1, 6), st.lists(EVENTS, max_size=6))
_stories = count()


def live(ledger: Ledger, clock: Clock, story: Story) -> None:
    number, replicas, events = story
    telling = next(_stories)  # a ledger may have seen other stories: no name of theirs is used again
    fleet = Fleet(
        ledger,
        clock,
        asked=[f"{telling}-{cluster}" for cluster in clusters(number)],
        names=(f"replica-{telling}-{n}" for n in count()),
    )
    for _ in range(replicas):
        fleet.join()
    fleet.settles(rounds=3)  # in the first, who asks before others have announced themselves takes too much
    for kind, n in events:
        one = fleet.alive[n % len(fleet.alive)]
        match kind:
            case "join":
                fleet.join()
                fleet.round()
            case "leave" if len(fleet.alive) > 1:
                fleet.leave(one)
            case "die" if len(fleet.alive) > 1:
                fleet.die(one)
            case "stall" if len(fleet.alive) > 1:
                fleet.stall(one)
                fleet.round()
            case "reload":
                fleet.asked = [f"{telling}-{cluster}" for cluster in clusters(n)]
                fleet.round()
        fleet.settles()
    for replica in tuple(fleet.alive):
        fleet.leave(replica)
    assert all(not lease.cluster_id.startswith(f"{telling}-") for lease in ledger.holders())


@given(STORIES)
@settings(max_examples=400)
def test_however_replicas_come_and_go_all_is_held_by_one_and_evenly(story: Story) -> None:
    clock = Clock()
    live(in_lists(clock)[0], clock, story)


@given(STORIES)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_it_is_in_every_form(ledger: Ledger, clock: Clock, story: Story) -> None:
    live(ledger, clock, story)
