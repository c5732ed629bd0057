"""A restored ledger: what it may have forgotten holds purchases back, for as long as that may be on its way."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.decision import decide
from autoscaler.facts import Facts, Reason
from autoscaler.model import Capacity, Restoral, Stranger, Task, Worker
from autoscaler.purchase import copied, quiet_period
from autoscaler.restoral import strangers
from tests.build import NOW, at, capacity, facts, gap, history, joining, order, policy, purchase, task, worker, workers
from tests.deciding import Row, check, lacking, rows

QUIET = quiet_period(timeout_mins=60)
WANTS = 'blocked at 12: "sessions" wants 15 (6000 at 400 each), would buy 3 but '
JUST = Restoral(at(minutes=-5), copied_at=at(days=-1))
BEGUN = Restoral(at(minutes=-5), begun=True)
SECOND = timedelta(seconds=1)


def after(restoral: Restoral, *found: Stranger, add: int = 3, **more: Any) -> Facts:
    """A policy that lacks workers, over a ledger that was restored, and what the newest look shows of strangers."""
    more.setdefault("capacity", capacity(workers(12), strangers=found))
    return lacking(add, history=history(restoral=restoral), **more)


def test_a_purchase_may_be_on_its_way_for_eighty_minutes() -> None:
    assert timedelta(minutes=80) == QUIET  # 15 of the signature, 60 of the cloud's own timeout, 5 of margin


HOLDS: dict[str, Row] = {
    "a restored ledger may lack a purchase that is on its way": (
        after(JUST),
        "blocked restored 0",
        f"{WANTS}the ledger was restored at 2026-06-01 11:55:00Z from a copy of 2026-05-31 12:00:00Z "
        "and may lack a purchase until 2026-06-01 13:15:00Z or `autoscaler ledger reviewed`",
    ),
    "of a copy that bears no mark nobody knows when it was made": (
        after(Restoral(NOW)),
        "blocked restored 0",
        f"{WANTS}the ledger was restored at 2026-06-01 12:00:00Z "
        "and may lack a purchase until 2026-06-01 13:20:00Z or `autoscaler ledger reviewed`",
    ),
    "what it does not know is named, some of it": (
        after(JUST, *(Stranger(f"worker i-{n}", at(minutes=-20)) for n in range(7))),
        "blocked restored 0",
        f"{WANTS}the ledger was restored at 2026-06-01 11:55:00Z from a copy of 2026-05-31 12:00:00Z "
        "and may lack a purchase until 2026-06-01 13:15:00Z or `autoscaler ledger reviewed`, "
        "it does not know worker i-0, worker i-1, worker i-2, worker i-3, worker i-4, 2 more",
    ),
    "a second before the youngest must have come": (
        after(Restoral(NOW - QUIET + SECOND)),
        "blocked restored 0",
    ),
    "then it goes on by itself": (after(Restoral(NOW - QUIET)), "scale_out needed 3"),
    "but for a stranger that came later still": (
        after(Restoral(NOW - QUIET), Stranger("task T-9", NOW - QUIET + SECOND)),
        "blocked restored 0",
    ),
    "a longer timeout of the cloud's is waited for": (
        after(Restoral(NOW - QUIET), of=policy(timeout_mins=70)),
        "blocked restored 0",
    ),
    "what is not needed is not held": (after(JUST, add=0), "hold enough 0"),
    "nor is a ledger that was never restored": (lacking(3), "scale_out needed 3"),
    "a look of before it was restored is none": (
        after(Restoral(NOW - QUIET), capacity=capacity(workers(12), at=NOW - QUIET - SECOND)),
        "blocked restored 0",
        f"{WANTS}the ledger was restored at 2026-06-01 10:40:00Z and the cluster was not looked at since "
        "(a look or `autoscaler ledger reviewed` ends that)",
    ),
    "an empty ledger is a new one by a person's word": (after(BEGUN), "scale_out needed 3"),
    "also where the clock that dated it was ahead": (
        after(Restoral(at(days=300), begun=True)),
        "scale_out needed 3",
    ),
    "unless a task is so young": (
        after(Restoral(at(days=300), begun=True), Stranger("task T-9", at(minutes=-20))),
        "blocked restored 0",
    ),
    "a copy restored by a clock that was ahead waits for a person": (
        after(Restoral(at(days=300))),
        "blocked restored 0",
    ),
    "unless the cluster shows that somebody bought": (
        after(BEGUN, Stranger("task T-9", at(minutes=-20))),
        "blocked restored 0",
        f"{WANTS}the ledger was begun at 2026-06-01 11:55:00Z and may lack a purchase until "
        "2026-06-01 13:00:00Z or `autoscaler ledger reviewed`, it does not know task T-9",
    ),
    "an unknown purchase of the copy goes before": (
        lacking(6, purchase(1, "unknown"), history=history(purchase(1, "unknown"), restoral=JUST)),
        "blocked purchase_unknown 0",
    ),
}

LONG_RESTORED = Restoral(at(hours=-3))
OLD_ORDER = order("buy", 5, starts_at=at(hours=-4))

ORDERED: dict[str, Row] = {
    "an order of before may have been served by what is forgotten": (
        after(LONG_RESTORED, overrides=(OLD_ORDER,)),
        "blocked restored 0",
        'blocked at 12: order 1 of ana lacks 5 of 5 ("derby tonight"), would buy 5 but the ledger was restored at '
        "2026-06-01 09:00:00Z and may lack what was bought for order 1: end it, or say `autoscaler ledger reviewed`",
    ),
    "one that was given since was not": (
        after(LONG_RESTORED, overrides=(order("buy", 5),)),
        "scale_out ordered 5",
    ),
    "nor was one of a ledger that was begun": (
        after(replace(LONG_RESTORED, begun=True), overrides=(OLD_ORDER,)),
        "scale_out ordered 5",
    ),
    "one that its purchases served holds nothing back": (
        lacking(
            3,
            history=history(purchase(1, "fulfilled", 3, at(hours=-5), order_id=1, arrivals=()), restoral=LONG_RESTORED),
            overrides=(order("buy", 3, starts_at=at(hours=-6)),),
        ),
        "scale_out needed 3",
    ),
}


@rows(HOLDS | ORDERED)
def test_decides(given: Facts, expected: str, sentence: str | None) -> None:
    check(given, expected, sentence)


def test_it_is_looked_at_again_when_the_time_is_over() -> None:
    assert decide(after(JUST)).recheck_at == JUST.at + QUIET


def test_without_a_look_that_is_said() -> None:
    decision = decide(after(JUST, capacity=gap(), overrides=(order("buy", 5),)))
    (verdict,) = (verdict for verdict in decision.verdicts if verdict.rule == "purchase_open")
    assert (decision.reason, "was not looked at since" in verdict.says) == (Reason.CAPACITY_GAP, True)


# What a look shows


def young(instance_id: str = "i-9", **fields: Any) -> Worker:
    (made,) = joining(1, since=at(minutes=-20))
    return replace(made, instance_id=instance_id, **fields)


def seen(
    *, tasks: tuple[Task, ...] = (), workers: tuple[Worker, ...] = (), restoral: Restoral | None = BEGUN
) -> list[str]:
    found = strangers(policy(), restoral, NOW, tasks, {"T-ours"}, workers)
    return [stranger.name for stranger in found]


DONE: dict[str, Any] = {"state": "success", "created_at": at(minutes=-20)}

LOOKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a task that runs": ({"tasks": (task("T-1", created_at=at(minutes=-20)),)}, ["task T-1"]),
    "one of a purchase in the ledger": ({"tasks": (task("T-ours", created_at=at(minutes=-20)),)}, []),
    "one that is over and names nobody": ({"tasks": (task("T-1", **DONE),)}, ["task T-1"]),
    "one that is over and whose workers are listed": (
        {"tasks": (task("T-1", succeeded=("i-1", "i-2"), **DONE),), "workers": workers(2)},
        [],
    ),
    "one of whose workers is not listed yet": (
        {"tasks": (task("T-1", succeeded=("i-1", "i-3"), **DONE),), "workers": workers(2)},
        ["task T-1"],
    ),
    "one that runs although all it names are listed": (
        {"tasks": (task("T-1", created_at=at(minutes=-20), succeeded=("i-1",)),), "workers": workers(1)},
        ["task T-1"],
    ),
    "one that is older than a purchase can be on its way": ({"tasks": (task("T-1", created_at=NOW - QUIET),)}, []),
    "one a second younger": ({"tasks": (task("T-1", created_at=NOW - QUIET + SECOND),)}, ["task T-1"]),
    "one without a time": ({"tasks": (task("T-1", created_at=None),)}, ["task T-1"]),
    "one that a lost request may have begun minutes later": (
        {"tasks": (task("T-1", created_at=BEGUN.at + timedelta(minutes=5)),)},
        ["task T-1"],
    ),
    "one that began after that": ({"tasks": (task("T-1", created_at=BEGUN.at + timedelta(minutes=5, seconds=1)),)}, []),
    "a worker that joins": ({"workers": (young(),)}, ["worker i-9"]),
    "one whose age nobody tells": ({"workers": (young(created_at=None),)}, ["worker i-9"]),
    "one of a purchase": ({"workers": (young(purchase_id=1),)}, []),
    "one of another type": ({"workers": (young(instance_type="ens.sn1.large"),)}, []),
    "one that carries load": ({"workers": (worker(created_at=at(minutes=-20)),)}, []),
    "nobody looks where the ledger lacks nothing": ({"workers": (young(),), "restoral": None}, []),
}


@pytest.mark.parametrize(("shown", "expected"), LOOKS.values(), ids=LOOKS)
def test_what_a_forgotten_purchase_may_have_brought(shown: dict[str, Any], expected: list[str]) -> None:
    assert seen(**shown) == expected


# What stands in a copy


@pytest.mark.parametrize(
    ("state", "becomes"),
    [("intended", "unknown"), ("sending", "sending"), ("accepted", "accepted"), ("rejected", "rejected")],
)
def test_what_was_about_to_be_sent_may_have_been(state: str, becomes: str) -> None:
    assert copied(purchase(1, state)).state == becomes


def test_what_was_imagined_was_not() -> None:
    imagined = purchase(1, "intended", imagined=True)
    assert copied(imagined) == imagined


def test_a_decision_of_a_ledger_that_was_never_restored_knows_nothing_of_it() -> None:
    known = facts(load=6000, capacity=capacity(workers(12)))
    assert isinstance(known.capacity, Capacity)
    assert (known.history.restoral, known.capacity.strangers) == (None, ())
    (verdict,) = (verdict for verdict in decide(known).verdicts if verdict.rule == "purchase_open")
    assert verdict.says == "none"


# What is lost is not bought again

MINUTES = st.integers(0, 15)


@given(
    restored=st.booleans(),
    signed=st.integers(0, 300),
    delivered=MINUTES,
    takes=st.integers(1, 60),
    lags=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    shown=st.booleans(),
    named=st.booleans(),
)
@settings(max_examples=60)
def test_what_a_lost_purchase_brings_is_not_bought_again(
    restored: bool, signed: int, delivered: int, takes: int, lags: list[int], shown: bool, named: bool
) -> None:
    """Whenever the lost three were signed, sold and listed, and whether or not the cloud's tasks tell of them.

    An empty ledger's daemon begins once they were sold, and where tasks are told of: nothing else could give a sign.
    """
    sold = NOW - timedelta(minutes=signed) + timedelta(minutes=delivered)
    over = sold + timedelta(minutes=takes)
    lost = [f"lost-{n}" for n in range(3)]
    restoral = Restoral(NOW, begun=not restored)
    begins = NOW if restored else max(NOW, sold)
    if not restored:
        restoral, shown = replace(restoral, at=begins), True
    for minute in range(0, 200, 3):
        now = begins + timedelta(minutes=minute)
        listed = [
            worker(name, created_at=sold, first_seen_at=max(over, NOW), ready_at=over)
            for name, lag in zip(lost, lags, strict=True)
            if over + timedelta(minutes=lag) <= now
        ]
        state = "running" if now < over else "success"
        names = tuple(lost) if named and state == "success" else ()
        tasks = (task("T-lost", state, created_at=sold, succeeded=names),) if shown and sold <= now else ()
        fleet = (*workers(12), *listed)
        look = capacity(
            fleet,
            at=now,
            tasks=tuple(each.task_id for each in tasks),
            foreign_tasks=tuple(each.task_id for each in tasks if each.state == "running"),
            strangers=strangers(policy(), restoral, now, tasks, (), fleet),
        )
        decision = decide(lacking(3, now=now, capacity=look, history=history(restoral=restoral)))
        assert decision.add == 0, (now, decision.sentence)
        if now >= sold + QUIET and now >= restoral.at + QUIET:
            assert decision.reason is Reason.ENOUGH, (now, decision.sentence)
