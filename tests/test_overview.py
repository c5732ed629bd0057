"""Where everything stands: who needs a person and why, in which order, and what each policy shows."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoscaler.decision import Evaluation, decide, withheld
from autoscaler.facts import Reason
from autoscaler.ledger import MemoryLedger, open_ledger
from autoscaler.model import GapReason, Inventory, OverrideKind, RefusalClass
from autoscaler.overview import Need, Overview, overview
from autoscaler.policy import Policy
from autoscaler.supply import Lapse
from tests.build import (
    NOW,
    at,
    budget,
    capacity,
    cluster,
    facts,
    gap,
    history,
    per_worker,
    policy,
    purchase,
    reading,
    unread,
    workers,
)
from tests.fakes import node

EDGE = policy()
TWO = policy(checks=(per_worker(), per_worker(name="requests")))
STRICT = policy(checks=(per_worker(required=True), per_worker(name="requests")))


class Book:
    """A ledger in lists, read at noon."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger(clock=lambda: NOW)

    def evaluated(self, of: Policy = EDGE, load: int | None = 4000, **given: Any) -> "Book":
        known = facts(of, load, **({"capacity": capacity(workers(10))} | given))
        self.ledger.record([Evaluation(known, decide(known))])
        return self

    def withheld(self, reason: Reason, why: str) -> "Book":
        known = facts(EDGE, 8000, capacity=capacity(workers(10)))
        self.ledger.record([withheld(Evaluation(known, decide(known)), reason, why)])
        return self

    def bought(self, state: str, id: int = 1, of: Policy = EDGE, **fate: Any) -> "Book":
        self.ledger._store(purchase(id, state, of=of, **fate))
        return self

    def read(self, *policies: Policy, now: Any = NOW) -> Overview:
        return overview(self.ledger, policies or (EDGE,), now)


def needs(found: Overview, name: str = "edge") -> list[tuple[Need, str]]:
    standing = found.standing(name)
    assert standing is not None
    return [(each.need, each.says) for each in standing.attention]


REFUSED = purchase(1, "rejected", refusal=RefusalClass.ACCOUNT, code="Forbidden", message="no")


@pytest.mark.parametrize(
    ("book", "expected"),
    [
        pytest.param(Book().evaluated(), [], id="enough needs nobody"),
        pytest.param(Book().evaluated(load=3000), [], id="nor does more than enough"),
        pytest.param(Book(), [(Need.OVERDUE, "it has not been evaluated yet: is a daemon at work?")], id="never"),
        pytest.param(
            Book().evaluated(now=at(minutes=-5)),
            [(Need.OVERDUE, "it was last evaluated 5m ago, and should be every 30s")],
            id="overdue",
        ),
        pytest.param(Book().evaluated(now=at(seconds=-90)), [], id="three periods are not overdue"),
        pytest.param(
            Book().evaluated().bought("unknown", sent_at=at(minutes=-7)),
            [
                (
                    Need.UNKNOWN_PURCHASE,
                    "for 7m nobody knows whether purchase 1 bought its 3 workers; see `autoscaler purchases show 1`",
                )
            ],
            id="a purchase of unknown outcome",
        ),
        pytest.param(
            Book().evaluated(load=0, history=history(REFUSED)),
            [
                (
                    Need.REFUSED,
                    "purchase 1 was refused (Forbidden: no), "
                    "until the credential changes or `autoscaler purchases retry`",
                )
            ],
            id="a refusal of the account, also while nothing is needed",
        ),
        pytest.param(
            Book().evaluated(capacity=gap(GapReason.UNREACHABLE, "no route")),
            [(Need.CAPACITY_GAP, "the workers cannot be counted (unreachable: no route), and nothing is bought")],
            id="a gap of capacity",
        ),
        pytest.param(
            Book().evaluated(STRICT, readings=(unread("sessions"), reading(4000, "requests"))),
            [(Need.REQUIRED_GAP, 'required "sessions" has no reading (timeout: no answer within 5s)')],
            id="a gap of a required check",
        ),
        pytest.param(
            Book().evaluated(STRICT, readings=(reading(4000, "sessions"), unread("requests"))),
            [],
            id="a gap beside a reading, of a check that is not required",
        ),
        pytest.param(
            Book().evaluated(TWO, readings=(unread("sessions", GapReason.CLOCK), reading(4000, "requests"))),
            [(Need.REQUIRED_GAP, '"sessions" has no reading (clock: no answer within 5s)')],
            id="a clock that lies, which holds everything",
        ),
        pytest.param(
            Book().evaluated(readings=(unread(),)),
            [(Need.REQUIRED_GAP, '"sessions" has no reading (timeout: no answer within 5s)')],
            id="no check has a reading",
        ),
        pytest.param(
            Book().evaluated(load=99999, capacity=capacity(workers(100))),
            [(Need.BLOCKED, 'blocked at 100: "sessions" wants 250 (99999 at 400 each), 150 needed but '
              "maximum 100 leaves 0, 100 are paid")],
            id="blocked while load is short",
        ),
        pytest.param(
            Book().withheld(Reason.NO_PASSWORD, "the workers' login password cannot be read"),
            [(Need.BLOCKED, "blocked: the workers' login password cannot be read; otherwise: scale out by 10 at 10: "
              '"sessions" wants 20 (8000 at 400 each)')],
            id="no password",
        ),
        pytest.param(
            Book().evaluated(load=8000, capacity=capacity(workers(10), cluster=cluster(profile="Default"))),
            [(Need.BLOCKED, 'blocked at 10: "sessions" wants 20 (8000 at 400 each), would buy 10 but '
              "the cluster's profile is Default, not Edge")],
            id="not an edge cluster",
        ),
        pytest.param(
            Book().evaluated(load=8000, history=history(purchase(1, "sending"))),
            [],
            id="a purchase being sent",
        ),
    ],
)  # fmt: skip
def test_who_needs_a_person_and_why(book: Book, expected: list[tuple[Need, str]]) -> None:
    of = STRICT if expected and "required" in expected[0][1] else EDGE
    assert needs(book.read(of)) == expected


def test_the_most_urgent_come_first() -> None:
    names = {name: policy(name=name, cluster_id=f"C-{name}") for name in ("a", "b", "c", "d", "e")}
    book = Book()
    for name, each in names.items():
        book.evaluated(each, capacity=gap() if name == "d" else capacity(workers(10)))
    book.evaluated(names["c"], load=99999, now=NOW + timedelta(seconds=1), capacity=capacity(workers(100)))
    book.bought("unknown", of=names["e"])
    found = book.read(*names.values())
    assert [standing.name for standing in found.policies] == ["e", "d", "c", "a", "b"]


def test_what_a_policy_shows() -> None:
    thrifty = policy(budgets=(budget(20),))
    book = Book().evaluated(thrifty).bought("accepted", 1, thrifty, sent_at=at(minutes=-1)).bought("fulfilled", 2)
    mine = book.ledger.add_override(OverrideKind.CAP, ["ed*"], 12, "ana", "money", NOW, at(hours=1))
    book.ledger.add_override(OverrideKind.CAP, ["other"], 12, "ana", "money", NOW, at(hours=1))
    book.ledger.lease("host-1", ["C1", "C2"], timedelta(hours=1))
    found = book.read(thrifty)
    standing = found.standing("edge")
    assert standing is not None
    assert standing.load == '"sessions" wants 10 (4000 at 400 each)'
    assert standing.budgets == "budget of 20 workers per 1d leaves 20, 0 are committed"
    assert standing.readings == (reading(4000),)
    assert standing.overrides == (mine,)
    assert [bought.id for bought in standing.purchases] == [bought.id for bought in found.purchases] == [1]
    assert (len(found.overrides), found.replicas, found.retired) == (2, {"host-1": 2}, ())
    assert found.standing("nobody") is None


def test_a_policy_without_a_budget_shows_none() -> None:
    standing = Book().evaluated().read().standing("edge")
    assert standing is not None
    assert standing.budgets == ""


@pytest.mark.parametrize(
    ("files", "age", "shown"),
    [
        pytest.param(True, timedelta(minutes=4), True, id="evaluated by another daemon a moment ago"),
        pytest.param(True, timedelta(minutes=6), False, id="taken out"),
        pytest.param(False, timedelta(hours=23), True, id="no file can be read here"),
        pytest.param(False, timedelta(hours=25), False, id="nor is there anybody to evaluate it"),
    ],
)
def test_a_policy_whose_file_is_not_here(files: bool, age: timedelta, shown: bool) -> None:
    book = Book().evaluated().evaluated(policy(name="elsewhere"), now=NOW - age)
    found = overview(book.ledger, (EDGE,) if files else (), NOW)
    assert (found.standing("elsewhere") is not None, "elsewhere" in found.retired) == (shown, not shown)


# lapses

UNRENEWED = policy(worker_auto_renew=False, worker_auto_renew_period=None)


def looked(book: Book, *expires_in_days: float | None, kind: str = "ens.sn1.tiny") -> Book:
    nodes = tuple(
        node(f"i-{n}", instance_type=kind, expires_at=None if days is None else at(days=days))
        for n, days in enumerate(expires_in_days)
    )
    book.ledger.record_look(Inventory("C1", NOW, cluster(), nodes, ()))
    return book


@pytest.mark.parametrize(
    ("of", "expires", "lapses"),
    [
        pytest.param(UNRENEWED, [3, 3, 1, 9, None], [(1, 1), (3, 2)], id="those of the next week, the next first"),
        pytest.param(EDGE, [3], [], id="one that renews itself does not lapse"),
        pytest.param(UNRENEWED, [-1], [], id="one that has lapsed is past"),
    ],
)
def test_lapses_of_workers_that_were_there(of: Policy, expires: list[float], lapses: list[tuple[int, int]]) -> None:
    standing = looked(Book(), *expires).read(of).standing("edge")
    assert standing is not None
    assert standing.lapses == tuple(Lapse(at(days=days), count) for days, count in lapses)


def test_a_bought_worker_lapses_as_it_was_bought() -> None:
    sold = purchase(1, "fulfilled", 1, of=UNRENEWED, sent_at=NOW - timedelta(days=29))
    book = looked(Book(), None)
    worker = book.ledger.workers("C1")[0].instance_id
    arrived = tuple(type(sold.arrivals[0])(worker, NOW) for _ in sold.arrivals)
    book.ledger._store(type(sold)(**{name: getattr(sold, name) for name in sold.__slots__} | {"arrivals": arrived}))
    standing = book.read(EDGE).standing("edge")  # which renews itself now
    assert standing is not None
    assert standing.lapses == (Lapse(at(days=2), 1),)


def test_what_two_policies_share_lapses_for_neither() -> None:
    twin = policy(name="twin", worker_auto_renew=False, worker_auto_renew_period=None)
    found = looked(Book(), 3).read(UNRENEWED, twin)
    assert [standing.lapses for standing in found.policies] == [(), ()]


# how fast


def test_five_hundred_policies_are_read_in_a_moment(tmp_path: Path) -> None:
    policies = [policy(name=f"edge-{n}", cluster_id=f"C{n}") for n in range(500)]
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock=lambda: NOW)
    made = [facts(each, 4000, capacity=capacity(workers(10))) for each in policies]
    ledger.record([Evaluation(known, decide(known)) for known in made])
    for n in range(500):
        nodes = tuple(node(f"i-{n}-{i}") for i in range(10))
        ledger.record_look(Inventory(f"C{n}", NOW, cluster(), nodes, ()))
    ledger.add_override(OverrideKind.FREEZE, ["*"], None, "ana", "derby", NOW, at(hours=1))
    begun = time.process_time()
    found = overview(ledger, policies, NOW)
    assert time.process_time() - begun < 1
    assert len(found.policies) == 500
    ledger.close()
