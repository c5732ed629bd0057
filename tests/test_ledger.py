"""The contract of the ledger, which every form of it keeps: in SQLite, in PostgreSQL and in lists."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from autoscaler.decision import Decision, Evaluation, decide
from autoscaler.ledger import MarkName, NotFound, StoredDecision
from autoscaler.ledger.agreement import REMEMBERED_COUNT
from autoscaler.model import (
    Arrival,
    History,
    Inventory,
    Node,
    Override,
    OverrideKind,
    Purchase,
    PurchaseState,
    RefusalClass,
)
from autoscaler.policy import Budget, Policy
from autoscaler.purchase import Raced
from tests.build import (
    CLUSTER_ID,
    NOW,
    at,
    capacity,
    cluster,
    facts,
    gap,
    headroom,
    order,
    per_worker,
    policy,
    purchase,
    reading,
    setpoint,
    unread,
    workers,
)
from tests.ledger_forms import Clock, Ledger

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
HOLDER = "daemon-1"


# Actions that tests are about


def evaluation(of: Policy | None = None, load: int | None = 4000, now: datetime = NOW, **given: Any) -> Evaluation:
    known = facts(of or policy(), load, now=now, **({"capacity": capacity(workers(10))} | given))
    return Evaluation(known, decide(known))


def intended(of: Policy | None = None, nonce: str = "nonce-a", **given: Any) -> Purchase:
    return purchase(0, "intended", of=of or policy(), nonce=nonce, **({"signed_at": NOW, "reserved_at": NOW} | given))


def reserve(ledger: Ledger, wish: Purchase, of: Policy | None = None, now: datetime = NOW) -> Purchase:
    buyer = of or policy()
    _, made = ledger.reserve(buyer, now, HOLDER, lambda history, orders: (evaluation(buyer, 9999, now), wish))
    assert made is not None
    return made


def become(ledger: Ledger, purchase: Purchase, when: datetime = NOW, **fields: Any) -> Purchase:
    words = {"state": PurchaseState, "refusal": RefusalClass}
    fields |= {name: words[name](fields[name]) for name in words.keys() & fields.keys()}
    return ledger.change(purchase.id, lambda p: replace(p, **fields), when, "it came so")


def bought(ledger: Ledger, nonce: str, state: str, of: Policy | None = None, **fields: Any) -> Purchase:
    """A purchase that was reserved and came to ``state``."""
    given = {name: fields.pop(name) for name in ("imagined", "credential", "asked", "order_id") if name in fields}
    made = reserve(ledger, intended(of, nonce, **given), of)
    return become(ledger, made, state=state, **fields)


def look(when: datetime, *nodes: Node, cluster_id: str = CLUSTER_ID) -> Inventory:
    return Inventory(cluster_id, when, cluster(), nodes, ())


def node(instance_id: str = "i-1", ready: bool = True, **fields: Any) -> Node:
    plain: dict[str, Any] = {
        "instance_type": "ens.sn1.tiny",
        "role": "Worker",
        "state": "running",
        "created_at": at(days=-1),
    }
    return Node(instance_id, ready=ready, **(plain | {"expires_at": None} | fields))


def ids(history: History) -> list[int]:
    return [purchase.id for purchase in history.purchases]


# What a history holds


def test_a_policy_nobody_bought_for_has_an_empty_history(ledger: Ledger) -> None:
    assert ledger.histories([policy()], NOW) == {"edge": History()}
    assert ledger.histories([], NOW) == {}


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ("intended", True),
        ("sending", True),
        ("accepted", True),
        ("unknown", True),
        ("fulfilled", True),
        ("failed", True),
        ("expired", True),
        ("rejected", True),
        ("not_bought", True),
        ("cancelled", False),
    ],
)
def test_a_history_holds_the_policys_purchases_but_the_cancelled(ledger: Ledger, state: str, held: bool) -> None:
    made = bought(ledger, "n", state)
    assert ids(ledger.histories([policy()], NOW)["edge"]) == ([made.id] if held else [])


@pytest.mark.parametrize("state", ["rejected", "not_bought"])
def test_of_what_was_not_bought_a_history_holds_the_newest_twenty(ledger: Ledger, state: str) -> None:
    made = [bought(ledger, f"n{n}", state).id for n in range(23)]
    assert ids(ledger.histories([policy()], NOW)["edge"]) == made[-20:]


@pytest.mark.parametrize(
    ("other", "state", "fields", "held"),
    [
        pytest.param({"name": "b"}, "unknown", {}, True, id="an open one of another policy of the cluster"),
        pytest.param({"name": "b"}, "accepted", {}, False, id="an accepted one of another policy is its own affair"),
        pytest.param({"name": "b", "cluster_id": "C2"}, "unknown", {}, False, id="an open one of another cluster"),
        pytest.param({"cluster_id": "C2"}, "accepted", {}, False, id="of the same name, but of another cluster"),
        pytest.param({"name": "b"}, "rejected", {"refusal": "account"}, True, id="the cluster's account refusal"),
        pytest.param({"name": "b"}, "rejected", {"refusal": "later"}, False, id="another policy's other refusal"),
    ],
)
def test_a_history_holds_what_concerns_its_cluster(
    ledger: Ledger, other: dict[str, Any], state: str, fields: dict[str, Any], held: bool
) -> None:
    made = bought(ledger, "n", state, policy(**other), **fields)
    assert ids(ledger.histories([policy()], NOW)["edge"]) == ([made.id] if held else [])


def test_a_history_holds_what_served_an_order_in_force_before_the_policy_moved(ledger: Ledger) -> None:
    buy = ledger.add_override(OverrideKind.BUY, ["edge", "b"], 5, "ana", "derby", NOW, at(hours=1))
    made = bought(ledger, "n", "fulfilled", policy(cluster_id="C2"), order_id=buy.id)
    bought(ledger, "of another policy", "fulfilled", policy(name="b", cluster_id="C3"), order_id=buy.id)
    bought(ledger, "of another order", "fulfilled", policy(cluster_id="C2"), order_id=buy.id + 1)
    assert ids(ledger.histories([policy()], NOW)["edge"]) == [made.id]
    assert ids(ledger.histories([policy()], at(hours=1))["edge"]) == []


def test_of_account_refusals_a_history_holds_the_newest_of_each_credential(ledger: Ledger) -> None:
    other = policy(name="b")
    made = [
        bought(ledger, f"n{n}", "rejected", other, credential=credential, refusal="account").id
        for n, credential in enumerate(["old", "old", "new", "new"])
    ]
    assert ids(ledger.histories([policy()], NOW)["edge"]) == [made[1], made[3]]


def test_a_shared_budget_shows_what_every_policy_committed_against_it(ledger: Ledger) -> None:
    share = Budget(workers=10, per=DAY, shared="team")
    mine, theirs = policy(budgets=(share,)), policy(name="b", cluster_id="C2", budgets=(share,))
    stranger = policy(name="c", cluster_id="C3")
    committed = bought(ledger, "n1", "fulfilled", theirs)
    bought(ledger, "n2", "rejected", theirs)
    bought(ledger, "n3", "fulfilled", stranger)
    histories = ledger.histories([mine, stranger], NOW)
    assert ids(histories["edge"]) == [committed.id]
    assert histories["edge"].purchases[0].shared_budgets == ("team",)


@pytest.mark.parametrize(("dry_run", "seen"), [(True, ["n1", "n2"]), (False, ["n1"])])
def test_only_a_dry_run_sees_what_was_imagined(ledger: Ledger, dry_run: bool, seen: list[str]) -> None:
    bought(ledger, "n1", "accepted")
    bought(ledger, "n2", "accepted", imagined=True)
    history = ledger.histories([policy(dry_run=dry_run)], NOW)["edge"]
    assert [purchase.nonce for purchase in history.purchases] == seen


def test_a_refusal_as_gone_is_known_to_every_policy_until_a_person_retries_it(ledger: Ledger) -> None:
    older = bought(ledger, "n1", "rejected", policy(name="c", cluster_id="C3"), refusal="gone")
    made = bought(ledger, "n2", "rejected", policy(name="b", cluster_id="C2"), refusal="gone")
    histories = ledger.histories([policy(), policy(name="d", cluster_id="C4")], NOW)
    assert [history.gone for history in histories.values()] == [(made,), (made,)]
    become(ledger, older, retried_at=NOW)
    assert ledger.histories([policy()], NOW)["edge"].gone == (made,)


def test_a_retry_of_the_newest_ends_the_older_refusals_of_that_cloud_and_no_other(ledger: Ledger) -> None:
    other = bought(ledger, "n1", "rejected", policy(name="c", cluster_id="C3"), refusal="gone", credential="other")
    bought(ledger, "n2", "rejected", policy(name="d", cluster_id="C4"), refusal="gone")
    made = bought(ledger, "n3", "rejected", policy(name="b", cluster_id="C2"), refusal="gone")
    assert ledger.histories([policy()], NOW)["edge"].gone == (other, made)
    become(ledger, made, retried_at=NOW)
    assert ledger.histories([policy()], NOW)["edge"].gone == (other,)
    become(ledger, other, retried_at=NOW)
    assert ledger.histories([policy()], NOW)["edge"].gone == ()


def test_of_credentials_that_change_by_the_hour_the_newest_refusals_are_remembered(ledger: Ledger) -> None:
    for n in range(REMEMBERED_COUNT + 2):
        bought(ledger, f"n{n}", "rejected", refusal="gone", credential=f"c{n}")
    kept = ledger.histories([policy()], NOW)["edge"].gone
    assert [p.credential for p in kept] == [f"c{n}" for n in range(2, REMEMBERED_COUNT + 2)]


def test_each_of_many_policies_gets_its_own_history(ledger: Ledger) -> None:
    policies = [policy(name=f"p{n}", cluster_id=f"C{n % 3}") for n in range(9)]
    made = {p.name: bought(ledger, p.name, "accepted", p) for p in policies}
    histories = ledger.histories(policies, NOW)
    assert {name: history.purchases for name, history in histories.items()} == {
        name: (purchase,) for name, purchase in made.items()
    }


# Orders of people


def freeze(ledger: Ledger, *names: str, ends_at: datetime = NOW + HOUR) -> Override:
    return ledger.add_override(OverrideKind.FREEZE, names, None, "ana", "derby", NOW, ends_at)


@pytest.mark.parametrize(
    ("when", "active"),
    [
        pytest.param(NOW - SECOND, True, id="from its record on, also by a clock that is behind its author's"),
        pytest.param(NOW + HOUR - SECOND, True, id="up to its end"),
        pytest.param(NOW + HOUR, False, id="not at its end"),
    ],
)
def test_an_order_is_told_while_it_holds(ledger: Ledger, when: datetime, active: bool) -> None:
    made = freeze(ledger, "*")
    assert ledger.overrides(when) == ((made,) if active else ())


def test_an_order_comes_back_as_it_was_given(ledger: Ledger) -> None:
    made = ledger.add_override(OverrideKind.BUY, ["edge-*", "b"], 5, "bo", "launch", NOW, at(hours=3))
    assert made == order("buy", 5, made.id, policies=("edge-*", "b"), author="bo", reason="launch", starts_at=NOW,
                         ends_at=at(hours=3))  # fmt: skip
    assert ledger.overrides(NOW) == (made,)


def test_the_first_end_of_an_order_wins(ledger: Ledger) -> None:
    made, other = freeze(ledger, "a"), freeze(ledger, "b")
    ended = ledger.end_override(made.id, "bo", "over", at(minutes=10))
    assert ended == replace(made, ended_at=at(minutes=10), ended_by="bo", ended_reason="over")
    assert ledger.end_override(made.id, "cy", "really", at(minutes=20)) == ended
    assert ledger.overrides(at(minutes=10)) == (other,)


def test_an_order_that_was_ended_is_over_also_by_a_clock_that_is_behind_its_authors(ledger: Ledger) -> None:
    buy = ledger.add_override(OverrideKind.BUY, ["edge"], 5, "ana", "derby", NOW, at(hours=3))
    ended = ledger.end_override(buy.id, "bo", "rained off", at(hours=1))
    assert ledger.overrides(NOW) == ()
    assert ended.active(NOW) is False


def test_a_later_short_freeze_does_not_end_an_earlier_long_one(ledger: Ledger) -> None:
    long = freeze(ledger, "*", ends_at=at(hours=8))
    freeze(ledger, "edge", ends_at=at(hours=3))
    assert ledger.overrides(at(hours=4)) == (long,)


def test_an_order_that_does_not_exist_cannot_be_ended(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="override 7"):
        ledger.end_override(7, "ana", "over", NOW)


# Workers, as all looks together know them


def test_who_is_ready_on_the_very_first_look_has_been_so_since_its_creation(ledger: Ledger) -> None:
    seen = ledger.record_look(look(NOW, node("i-1"), node("i-2", created_at=None), node("i-3", ready=False)))
    assert [(w.instance_id, w.first_seen_at, w.ready_at) for w in seen] == [
        ("i-1", NOW, at(days=-1)),
        ("i-2", NOW, NOW),
        ("i-3", NOW, None),
    ]


def test_a_worker_that_joins_later_is_ready_since_the_look_that_shows_it(ledger: Ledger) -> None:
    ledger.record_look(look(NOW))
    ledger.record_look(look(at(minutes=1), node(ready=False, created_at=NOW)))
    (worker,) = ledger.record_look(look(at(minutes=2), node(created_at=NOW)))
    assert (worker.first_seen_at, worker.ready_at) == (at(minutes=1), at(minutes=2))
    (worker,) = ledger.record_look(look(at(minutes=3), node(created_at=NOW)))
    assert (worker.ready_at, worker.last_ready_at, worker.last_seen_at) == (at(minutes=2), *2 * (at(minutes=3),))


def test_a_worker_that_is_lost_remembers_when_it_was_last_ready(ledger: Ledger) -> None:
    ledger.record_look(look(NOW, node()))
    ledger.record_look(look(at(minutes=1), node(ready=False)))
    (worker,) = ledger.record_look(look(at(minutes=2), node(ready=False)))
    assert (worker.listed, worker.ready, worker.ready_at) == (True, False, at(days=-1))
    assert (worker.last_ready_at, worker.last_seen_at) == (NOW, at(minutes=2))


def test_a_worker_missing_from_a_look_is_neither_listed_nor_forgotten(ledger: Ledger) -> None:
    ledger.record_look(look(NOW, node("i-1"), node("i-2", ready=False)))
    first, second = ledger.record_look(look(at(minutes=1)))
    assert (first.listed, first.ready, first.last_ready_at, first.last_seen_at) == (False, False, NOW, NOW)
    assert (second.listed, second.last_ready_at, second.last_seen_at) == (False, None, NOW)
    (first, _) = ledger.record_look(look(at(minutes=2), node("i-1")))
    assert (first.listed, first.ready, first.first_seen_at, first.last_seen_at) == (True, True, NOW, at(minutes=2))


def test_a_worker_missing_for_an_hour_of_looks_is_gone_until_it_is_seen_again(ledger: Ledger) -> None:
    made = bought(ledger, "n", "accepted", arrivals=(Arrival("i-1", NOW),))
    ledger.record_look(look(NOW, node()))
    ledger.record_look(look(at(minutes=1)))
    assert len(ledger.record_look(look(at(minutes=60)))) == 1
    assert ledger.record_look(look(at(minutes=61))) == ()
    assert ledger.workers(CLUSTER_ID) == ()
    stored = ledger.purchase(made.id)
    assert stored is not None
    assert stored.arrivals == (Arrival("i-1", NOW, gone_at=NOW),)
    assert ledger.histories([policy()], NOW)["edge"].purchases == (stored,)
    (worker,) = ledger.record_look(look(at(minutes=90), node()))
    assert (worker.listed, worker.first_seen_at) == (True, NOW)
    assert ledger.purchase(made.id) == made


def test_an_hour_without_any_look_makes_nobody_gone(ledger: Ledger) -> None:
    ledger.record_look(look(NOW, node()))
    (worker,) = ledger.record_look(look(at(hours=5)))
    assert (worker.listed, worker.last_seen_at) == (False, NOW)


def test_looks_that_come_out_of_order_are_ignored(ledger: Ledger, clock: Clock) -> None:
    clock.passes(MINUTE)
    newer = ledger.record_look(look(at(minutes=1), node("i-1")))
    assert ledger.record_look(look(NOW, node("i-2"))) == newer
    assert ledger.record_look(look(at(minutes=1), node("i-2"))) == newer
    assert ledger.workers(CLUSTER_ID) == newer


def test_masters_and_other_clusters_are_none_of_the_workers(ledger: Ledger) -> None:
    ledger.record_look(look(NOW, node("i-1"), node("m-1", role="Master")))
    ledger.record_look(look(NOW, node("i-1"), node("i-9"), cluster_id="C2"))
    assert [worker.instance_id for worker in ledger.workers(CLUSTER_ID)] == ["i-1"]
    assert ledger.workers("C3") == ()


def test_a_worker_is_known_by_the_purchase_that_brought_it(ledger: Ledger) -> None:
    made = bought(ledger, "n", "accepted", arrivals=(Arrival("i-2", NOW),))
    seen = ledger.record_look(look(NOW, node("i-1"), node("i-2")))
    assert [worker.purchase_id for worker in seen] == [None, made.id]


def test_a_renewal_moves_the_end_of_a_workers_term(ledger: Ledger) -> None:
    ledger.record_look(look(NOW, node(expires_at=at(days=1))))
    (worker,) = ledger.record_look(look(at(minutes=1), node(expires_at=at(days=31))))
    assert worker.expires_at == at(days=31)
    (worker,) = ledger.record_look(look(at(minutes=2), node(expires_at=None)))
    assert worker.expires_at == at(days=31)


# Evaluations


def decision_of(ledger: Ledger, evaluation: Evaluation) -> Decision:
    ledger.record([evaluation])
    return ledger.latest()[evaluation.decision.policy]


EVERY_KIND_OF_FACT = [
    pytest.param({"load": 4000}, id="nothing is needed"),
    pytest.param({"load": 9999}, id="workers are needed"),
    pytest.param({"readings": (unread(),)}, id="a check has a gap"),
    pytest.param({"load": 4000, "capacity": gap()}, id="capacity is a gap"),
    pytest.param({"load": 4000, "overrides": (order("cap", 3), order("buy", 5, 2))}, id="people gave orders"),
    pytest.param(
        {
            "of": policy(checks=(setpoint(tolerance="0.1"), per_worker("1/3")), headroom=headroom(10), dry_run=True),
            "load": None,
            "readings": (reading("0.7333", "utilization", over=9), reading("5873.25")),
            "history": History((purchase(1, "fulfilled"), purchase(2, "unknown")), (), (purchase(3, "rejected"),)),
            "capacity": capacity(workers(3), counted=3, foreign_tasks=("T-9",)),
        },
        id="everything at once",
    ),
]


@pytest.mark.parametrize("given", EVERY_KIND_OF_FACT)
def test_an_evaluation_comes_back_whole_and_decides_the_same_again(ledger: Ledger, given: dict[str, Any]) -> None:
    made = evaluation(**given)
    assert ledger.record([made]) == (True,)
    (stored,) = ledger.decisions()
    again = ledger.evaluation(stored.id)
    assert again == made
    assert stored == StoredDecision(stored.id, made.decision)
    assert again is not None
    assert decide(again.facts) == made.decision
    assert ledger.evaluation(stored.id + 1) is None


def test_an_evaluation_is_kept_with_the_policy_as_it_was_then(ledger: Ledger) -> None:
    before, after = policy(maximum=40), policy(maximum=41)
    ledger.record([evaluation(before, 4000)])
    ledger.record([evaluation(after, 9999, at(minutes=1))])
    stored = [ledger.evaluation(decision.id) for decision in ledger.decisions()]
    assert [e.facts.policy if e else None for e in stored] == [after, before]


def test_a_decision_is_appended_only_where_it_is_news(ledger: Ledger) -> None:
    quiet = [ledger.record([evaluation(load=4000, now=at(seconds=30 * n))]) for n in range(4)]
    assert quiet == [(True,), (False,), (False,), (False,)]
    assert ledger.record([evaluation(load=5600, now=at(minutes=3))]) == (True,)  # 4 are needed
    assert ledger.record([evaluation(load=5601, now=at(minutes=4))]) == (True,)  # 5 are needed
    assert ledger.record([evaluation(load=4000, now=at(minutes=5))]) == (True,)
    assert [stored.decision.add for stored in ledger.decisions()] == [0, 5, 4, 0]
    assert ledger.latest()["edge"].at == at(minutes=5)


def test_a_batch_may_hold_one_policy_twice_and_many_once(ledger: Ledger) -> None:
    batch = [
        evaluation(policy(name="a"), 4000),
        evaluation(policy(name="b"), 4000),
        evaluation(policy(name="a"), 4000, at(seconds=1)),
        evaluation(policy(name="a"), 9999, at(seconds=2)),
    ]
    assert ledger.record(batch) == (True, True, False, True)
    assert ledger.record([]) == ()
    assert {name: decision.at for name, decision in ledger.latest().items()} == {"a": at(seconds=2), "b": NOW}


def test_an_evaluation_that_comes_late_replaces_nothing(ledger: Ledger, clock: Clock) -> None:
    clock.passes(MINUTE)
    newer = decision_of(ledger, evaluation(now=at(minutes=1)))
    assert ledger.record([evaluation(load=9999, now=NOW)]) == (False,)
    assert ledger.latest() == {"edge": newer}
    assert [sample.at for sample in ledger.samples("edge", at(hours=-1))] == [at(minutes=1)]


# When a clock was ahead


def test_a_look_by_a_clock_that_was_ahead_gives_way_and_is_taken_for_as_old(ledger: Ledger) -> None:
    ledger.record_look(look(at(minutes=-1), node("i-1")))
    ahead = at(hours=1)
    ledger.record_look(look(ahead, node("i-1"), node("i-2"), node("i-3", ready=False)))
    told = ledger.record_look(look(NOW, node("i-1"), node("i-2", ready=False)))
    assert ledger.workers(CLUSTER_ID) == told
    assert [(w.instance_id, w.first_seen_at, w.ready_at, w.last_ready_at, w.last_seen_at) for w in told] == [
        ("i-1", at(minutes=-1), at(days=-1), NOW, NOW),
        ("i-2", NOW, NOW, NOW, NOW),
        ("i-3", NOW, None, None, NOW),
    ]
    assert ledger.record_look(look(at(seconds=-1), node("i-1"))) == told


def test_a_worker_gone_by_a_clock_that_was_ahead_is_missing_for_an_hour_from_then_on(ledger: Ledger) -> None:
    ledger.record_look(look(at(hours=-3), node()))
    ledger.record_look(look(at(hours=5)))
    ledger.record_look(look(NOW))
    assert len(ledger.record_look(look(at(minutes=59)))) == 1
    assert ledger.record_look(look(at(minutes=60))) == ()


def test_an_evaluation_by_a_clock_that_was_ahead_gives_way(ledger: Ledger) -> None:
    ahead = [evaluation(load=4400, now=at(hours=2, minutes=n)) for n in range(3)]
    for one in ahead:
        ledger.record([one])
    assert ledger.record([evaluation(load=4000)]) == (True,)
    assert ledger.latest()["edge"].at == NOW
    assert [(sample.at, sample.demand) for sample in ledger.samples("edge", at(hours=-1))] == [(NOW, Fraction(10))]


def test_a_window_that_a_clock_ahead_watched_begins_anew(ledger: Ledger, clock: Clock) -> None:
    watched = policy(stabilization_window=2 * MINUTE)
    for minutes in (-1, -0.5, 59, 59.5, 60, 0, 0.5):
        now = at(minutes=minutes)
        history = ledger.histories([watched], now)["edge"]
        ledger.record([evaluation(watched, 4000, now, history=history)])
    runs = ledger.histories([watched], now)["edge"].runs
    assert [(run.first_at, run.last_at, run.n) for run in runs] == [(NOW, at(minutes=0.5), 2)]


def test_a_clock_set_back_between_reservation_and_send_forbids_it(ledger: Ledger) -> None:
    made = reserve(ledger, intended())
    ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
    said = ledger.begin_sending(made, HOLDER, at(hours=-1))
    assert said == "the clock was set back by 3600 s since it was reserved"
    stored = ledger.purchase(made.id)
    assert stored is not None
    assert stored.state is PurchaseState.CANCELLED


def test_a_policy_that_moves_to_another_cluster_begins_anew(ledger: Ledger) -> None:
    ledger.record([evaluation(policy())])
    moved = policy(cluster_id="C2")
    assert ledger.histories([moved], NOW)["edge"].runs == ()
    assert ledger.record([evaluation(moved, now=at(minutes=1))]) == (True,)


def test_decisions_are_told_by_pages_from_the_newest(ledger: Ledger) -> None:
    for n in range(5):
        ledger.record([evaluation(policy(name=f"p{n % 2}"), 4000 + 400 * n, at(minutes=n))])
    first = ledger.decisions(limit=2)
    assert [stored.decision.at for stored in first] == [at(minutes=4), at(minutes=3)]
    rest = ledger.decisions(before_id=first[-1].id)
    assert [stored.decision.at for stored in rest] == [at(minutes=2), at(minutes=1), NOW]
    assert [stored.decision.at for stored in ledger.decisions(policy="p1")] == [at(minutes=3), at(minutes=1)]


def test_what_the_window_needs_is_found_again_and_shows_the_hole(ledger: Ledger) -> None:
    """The daemon is off from 10:01 to 11:00 with a window of two minutes: the hole must stay visible."""
    watched = policy(stabilization_window=2 * MINUTE)
    for seconds in (0, 30, 60, 59 * 60, 59 * 60 + 30):
        now = at(seconds=seconds)
        history = ledger.histories([watched], now)["edge"]
        ledger.record([evaluation(watched, 4000, now, history=history)])
    runs = ledger.histories([watched], now)["edge"].runs
    assert [(run.first_at, run.last_at, run.n) for run in runs] == [(at(minutes=59), at(minutes=59.5), 2)]
    assert runs[0].wanted == 10
    assert runs[0].policy_version == watched.version


# Samples


def test_a_minute_is_sampled_by_its_last_evaluation(ledger: Ledger) -> None:
    for seconds, load in ((0, 4000), (30, 4400), (60, 4800)):
        ledger.record([evaluation(load=load, now=at(seconds=seconds))])
    ledger.record([evaluation(policy(name="b"), 9999)])
    first, second = ledger.samples("edge", NOW)
    assert (first.at, second.at) == (NOW, at(minutes=1))
    assert (first.demand, second.demand) == (Fraction(11), Fraction(12))
    assert first.supply is not None
    assert first.supply.serving == 10
    assert ledger.samples("edge", at(seconds=1)) == (second,)
    assert ledger.samples("c", NOW) == ()


def test_a_minute_without_capacity_is_sampled_too(ledger: Ledger) -> None:
    ledger.record([evaluation(capacity=gap(), readings=(unread(),))])
    (sample,) = ledger.samples("edge", NOW)
    assert (sample.demand, sample.wanted, sample.supply) == (None, None, None)


def test_samples_reach_back_two_days(ledger: Ledger) -> None:
    for hours in (0, 1, 49):
        ledger.record([evaluation(now=at(hours=hours))])
    assert [sample.at for sample in ledger.samples("edge", at(days=-9))] == [at(hours=1), at(hours=49)]


# Reserving


def test_a_reservation_writes_the_decision_and_the_intent_together(ledger: Ledger) -> None:
    asked: list[tuple[History, tuple[Override, ...]]] = []
    stop = freeze(ledger, "other")
    earlier = bought(ledger, "n0", "fulfilled")
    made = evaluation(load=9999, now=at(minutes=1))
    wish = intended(asked=5, tasks_before=("T-1", "T-2"), order_id=4, supply_before=10)

    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        asked.append((history, orders))
        return made, wish

    told, purchase = ledger.reserve(policy(), at(minutes=1), HOLDER, propose)
    assert purchase is not None
    assert (told, purchase) == (made, replace(wish, id=purchase.id))
    assert purchase.id > earlier.id
    ((history, orders),) = asked
    assert (history.purchases, orders) == ((earlier,), (stop,))
    assert ledger.purchase(purchase.id) == purchase
    assert ledger.latest()["edge"] == made.decision
    (event,) = ledger.purchase_events(purchase.id)
    assert (event.at, event.before, event.after) == (at(minutes=1), None, PurchaseState.INTENDED)
    assert HOLDER in event.what


def test_a_decision_that_buys_is_appended_even_if_it_is_no_news(ledger: Ledger) -> None:
    for n in range(2):
        become(ledger, reserve(ledger, intended(nonce=f"n{n}")), state="accepted")
    newest, oldest = ledger.decisions()
    assert [ledger.decision_of(purchase.id) for purchase in ledger.purchases()] == [newest.id, oldest.id]
    assert ledger.decision_of(99) is None


def test_a_reservation_may_come_to_nothing(ledger: Ledger) -> None:
    made = evaluation()
    assert ledger.reserve(policy(), NOW, HOLDER, lambda history, orders: (made, None)) == (made, None)
    assert ledger.purchases() == ()
    assert ledger.latest()["edge"] == made.decision


def test_a_proposal_that_raises_leaves_nothing(ledger: Ledger) -> None:
    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        ledger.reserve(policy(), NOW, HOLDER, propose)
    assert ledger.latest() == {}
    reserve(ledger, intended())  # and the ledger goes on


@pytest.mark.parametrize(
    ("first", "second", "raced"),
    [
        pytest.param({}, {"nonce": "b"}, True, id="two open ones of a cluster"),
        pytest.param({}, {"nonce": "b", "of": policy(name="b")}, True, id="of two policies of a cluster"),
        pytest.param({}, {"nonce": "b", "of": policy(cluster_id="C2")}, False, id="of two clusters"),
        pytest.param({}, {"nonce": "b", "imagined": True}, False, id="a real one and an imagined one"),
        pytest.param({"imagined": True}, {"nonce": "b", "imagined": True}, True, id="two imagined ones"),
        pytest.param({}, {"nonce": "nonce-a", "of": policy(cluster_id="C2")}, True, id="a nonce used twice"),
    ],
)
def test_a_cluster_has_at_most_one_open_purchase(
    ledger: Ledger, first: dict[str, Any], second: dict[str, Any], raced: bool
) -> None:
    reserve(ledger, intended(**first))
    news = len(ledger.decisions())
    if raced:
        with pytest.raises(Raced):
            reserve(ledger, intended(**second), second.get("of"))
        assert len(ledger.purchases()) == 1
        assert len(ledger.decisions()) == news
    else:
        reserve(ledger, intended(**second), second.get("of"))
        assert len(ledger.purchases()) == 2


@pytest.mark.parametrize("state", ["sending", "unknown"])
def test_a_cluster_stays_taken_until_its_purchase_is_resolved(ledger: Ledger, state: str) -> None:
    made = bought(ledger, "n", state)
    with pytest.raises(Raced):
        reserve(ledger, intended(nonce="m"))
    become(ledger, made, state="accepted")
    reserve(ledger, intended(nonce="m"))


def test_of_two_that_reserve_at_once_one_sees_the_others_purchase(handles: tuple[Ledger, Ledger]) -> None:
    """Each proposes only where it sees no open purchase, as the rules do: nobody even races for the row."""
    start = Barrier(2)

    def run(ledger: Ledger, nonce: str) -> Purchase | None:
        def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase | None]:
            return evaluation(load=9999), None if history.purchases else intended(nonce=nonce)

        start.wait(10)
        return ledger.reserve(policy(), NOW, HOLDER, propose)[1]

    for n in range(10):
        with ThreadPoolExecutor(2) as pool:
            made = list(pool.map(run, handles, (f"a{n}", f"b{n}")))
        (won,) = [purchase for purchase in made if purchase is not None]
        assert handles[0].purchases() == (won, *handles[0].purchases()[1:])
        become(handles[0], won, state="cancelled")


# Sending


def test_an_intended_purchase_is_claimed_for_sending_once(ledger: Ledger) -> None:
    made = reserve(ledger, intended())
    ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
    assert ledger.begin_sending(made, HOLDER, at(seconds=2)) is None
    claimed = ledger.purchase(made.id)
    assert claimed == replace(made, state=PurchaseState.SENDING, sent_at=at(seconds=2))
    assert ledger.begin_sending(made, HOLDER, at(seconds=3)) == "it is sending already"
    assert ledger.purchase(made.id) == claimed
    assert [event.after for event in ledger.purchase_events(made.id)] == ["intended", "sending"]


def no_lease(ledger: Ledger, clock: Clock) -> None:
    ledger.release(HOLDER)


def lease_ran_out(ledger: Ledger, clock: Clock) -> None:
    clock.passes(MINUTE)


def lease_moved(ledger: Ledger, clock: Clock) -> None:
    ledger.release(HOLDER)
    ledger.lease("daemon-2", [CLUSTER_ID], HOUR)


def frozen(ledger: Ledger, clock: Clock) -> None:
    freeze(ledger, "ed*")


def frozen_elsewhere(ledger: Ledger, clock: Clock) -> None:
    freeze(ledger, "be*")
    ledger.add_override(OverrideKind.CAP, ["edge"], 1, "ana", "cap", NOW, at(hours=1))


def nothing(ledger: Ledger, clock: Clock) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "after", "why_not"),
    [
        pytest.param(nothing, 30 * SECOND, None, id="thirty seconds are not too old"),
        pytest.param(nothing, 31 * SECOND, "31 s ago", id="older ones are"),
        pytest.param(no_lease, SECOND, "lease", id="the lease was given back"),
        pytest.param(lease_ran_out, SECOND, "lease", id="the lease ran out"),
        pytest.param(lease_moved, SECOND, "lease", id="another daemon holds the lease"),
        pytest.param(frozen, SECOND, "frozen by ana: derby", id="a person froze the policy"),
        pytest.param(frozen_elsewhere, SECOND, None, id="other orders do not matter"),
    ],
)
def test_what_may_not_be_sent_is_cancelled(
    ledger: Ledger,
    clock: Clock,
    before: Callable[[Ledger, Clock], None],
    after: timedelta,
    why_not: str | None,
) -> None:
    made = reserve(ledger, intended())
    ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
    before(ledger, clock)
    said = ledger.begin_sending(made, HOLDER, NOW + after)
    stored = ledger.purchase(made.id)
    assert stored is not None
    if why_not is None:
        assert (said, stored.state) == (None, PurchaseState.SENDING)
        return
    assert said is not None
    assert why_not in said
    assert (stored.state, stored.ended_at, stored.sent_at) == (PurchaseState.CANCELLED, NOW + after, None)
    assert ledger.purchase_events(made.id)[-1].what == said
    assert ledger.begin_sending(made, HOLDER, NOW + after) == "it is cancelled already"


def test_of_two_that_claim_at_once_one_sends(handles: tuple[Ledger, Ledger]) -> None:
    handles[0].lease(HOLDER, [CLUSTER_ID], MINUTE)
    start = Barrier(2)

    def claim(ledger: Ledger) -> str | None:
        start.wait(10)
        return ledger.begin_sending(made, HOLDER, NOW)

    for n in range(10):
        made = reserve(handles[0], intended(nonce=f"n{n}"))
        with ThreadPoolExecutor(2) as pool:
            assert sorted(map(str, pool.map(claim, handles))) == ["None", "it is sending already"]
        become(handles[1], made, state="accepted")


def test_a_purchase_that_does_not_exist_cannot_be_sent(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="purchase 7"):
        ledger.begin_sending(replace(intended(), id=7), HOLDER, NOW)


def test_a_purchase_whose_id_another_has_since_is_not_claimed_for_it(ledger: Ledger) -> None:
    ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
    other = reserve(ledger, intended(nonce="after the restoring"))
    said = ledger.begin_sending(replace(other, nonce="before it"), HOLDER, at(seconds=2))
    assert said == "its id is another purchase's: the ledger was restored since it was reserved"
    assert ledger.purchase(other.id) == other
    assert ledger.begin_sending(other, HOLDER, at(seconds=2)) is None


# Changing


def test_a_purchase_keeps_everything_that_becomes_of_it(ledger: Ledger) -> None:
    made = reserve(ledger, intended())
    fate: dict[str, Any] = {
        "state": PurchaseState.FAILED,
        "sent_at": at(seconds=1),
        "answered_at": at(seconds=2),
        "ended_at": at(seconds=3, microseconds=123456),
        "task_id": "T-1",
        "request_id": "R-1",
        "refusal": RefusalClass.LATER,
        "code": "InventoryExceeded",
        "message": "sold out",
        "failed": 1,
        "failures": ("i-8", "i-9"),
        "adopted": True,
        "overdue_at": at(seconds=4),
        "retried_at": at(seconds=5),
        "arrivals": (Arrival("i-1", at(seconds=2)), Arrival("i-2", at(seconds=2))),
    }
    changed = ledger.change(made.id, lambda p: replace(p, **fate), at(seconds=9), "the task failed", "ana")
    assert changed == replace(made, **fate) == ledger.purchase(made.id)
    event = ledger.purchase_events(made.id)[-1]
    assert (event.at, event.before, event.after, event.what, event.author) == (
        at(seconds=9),
        PurchaseState.INTENDED,
        PurchaseState.FAILED,
        "the task failed",
        "ana",
    )


def test_a_change_that_changes_nothing_is_no_event(ledger: Ledger) -> None:
    made = reserve(ledger, intended())
    assert ledger.change(made.id, lambda p: p, NOW, "looked") == made
    assert len(ledger.purchase_events(made.id)) == 1
    assert ledger.purchase_events(99) == ()


def test_what_is_known_of_an_arrival_does_not_change(ledger: Ledger) -> None:
    made = bought(ledger, "n", "accepted", arrivals=(Arrival("i-1", NOW),))
    assert become(ledger, made, arrivals=(Arrival("i-1", at(hours=1), gone_at=NOW),)) == made
    assert len(ledger.purchase_events(made.id)) == 2


def test_an_arrival_may_be_taken_back(ledger: Ledger) -> None:
    """A guess by evidence gave it the wrong worker: the answer that came late knows better."""
    made = bought(ledger, "n", "accepted", arrivals=(Arrival("i-1", NOW), Arrival("i-2", NOW)))
    assert become(ledger, made, arrivals=(Arrival("i-2", NOW), Arrival("i-3", NOW))) == ledger.purchase(made.id)
    assert [arrival.instance_id for arrival in become(ledger, made, failed=1).arrivals] == ["i-2", "i-3"]
    other = bought(ledger, "m", "accepted", arrivals=(Arrival("i-1", NOW),))
    assert other.arrived == 1


def test_a_worker_belongs_to_one_purchase(ledger: Ledger) -> None:
    bought(ledger, "n", "accepted", arrivals=(Arrival("i-1", NOW),))
    other = bought(ledger, "m", "accepted")
    with pytest.raises(Raced):
        become(ledger, other, state="fulfilled", arrivals=(Arrival("i-1", NOW),))
    assert ledger.purchase(other.id) == other
    assert len(ledger.purchase_events(other.id)) == 2
    elsewhere = bought(ledger, "o", "accepted", policy(cluster_id="C2"), arrivals=(Arrival("i-1", NOW),))
    assert elsewhere.arrived == 1


def test_a_change_cannot_reopen_a_cluster_that_is_taken(ledger: Ledger) -> None:
    ended = bought(ledger, "n", "not_bought")
    reserve(ledger, intended(nonce="m"))
    with pytest.raises(Raced):
        become(ledger, ended, state="unknown")


@pytest.mark.parametrize("field", ["asked", "nonce", "policy", "signed_at"])
def test_what_a_reservation_fixes_cannot_change(ledger: Ledger, field: str) -> None:
    made = reserve(ledger, intended())
    different: dict[str, Any] = {field: at(hours=1)}
    with pytest.raises(ValueError, match=field):
        ledger.change(made.id, lambda p: replace(p, **different), NOW, "a bug")
    assert ledger.purchase(made.id) == made


def test_a_change_that_raises_leaves_the_purchase_as_it_was(ledger: Ledger) -> None:
    made = reserve(ledger, intended())

    def refuse(purchase: Purchase) -> Purchase:
        raise ValueError("too early")

    with pytest.raises(ValueError, match="too early"):
        ledger.change(made.id, refuse, NOW, "settled")
    assert ledger.purchase(made.id) == made
    with pytest.raises(NotFound, match="purchase 99"):
        ledger.change(99, lambda p: p, NOW, "settled")


def test_changes_made_at_once_all_count(handles: tuple[Ledger, Ledger]) -> None:
    made = reserve(handles[0], intended(asked=50))
    start = Barrier(2)

    def one_more(arrival: Arrival, purchase: Purchase) -> Purchase:
        return replace(purchase, arrivals=(*purchase.arrivals, arrival), failed=purchase.failed + 1)

    def arrive(ledger: Ledger, prefix: str) -> None:
        start.wait(10)
        for n in range(20):
            ledger.change(made.id, partial(one_more, Arrival(f"{prefix}{n}", NOW)), NOW, "one more")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(arrive, handles, "ab"))
    after = handles[0].purchase(made.id)
    assert after is not None
    assert (after.arrived, after.failed) == (40, 40)


# Finding purchases


def test_purchases_are_told_by_pages_from_the_newest(ledger: Ledger) -> None:
    made = [bought(ledger, f"n{n}", "accepted" if n % 2 else "rejected", policy(name=f"p{n}")) for n in range(5)]
    assert ledger.purchases() == tuple(reversed(made))
    assert ledger.purchases(limit=2) == (made[4], made[3])
    assert ledger.purchases(before_id=made[3].id, limit=2) == (made[2], made[1])
    assert ledger.purchases(policy="p1") == (made[1],)
    assert ledger.purchases(states=[PurchaseState.ACCEPTED]) == (made[3], made[1])
    assert ledger.purchase(99) is None


@pytest.mark.parametrize(
    ("state", "fields", "unsettled"),
    [
        pytest.param("intended", {}, True, id="intended"),
        pytest.param("sending", {}, True, id="sending"),
        pytest.param("unknown", {}, True, id="unknown"),
        pytest.param("accepted", {"failed": 3}, True, id="accepted"),
        pytest.param("expired", {"failed": 2}, True, id="expired, one may still come"),
        pytest.param("failed", {"failed": 2}, True, id="failed, one may still come"),
        pytest.param("failed", {"failed": 3}, True, id="failed whole: a task's word is not proof (case 25)"),
        pytest.param("expired", {"failed": 2, "arrivals": (Arrival("i", NOW),)}, True, id="expired, two still missing"),
        pytest.param("failed", {"arrivals": tuple(Arrival(i, NOW) for i in "abc")}, False, id="failed, yet all came"),
        pytest.param("fulfilled", {}, False, id="fulfilled"),
        pytest.param("rejected", {}, False, id="rejected"),
        pytest.param("cancelled", {}, False, id="cancelled"),
        pytest.param("not_bought", {}, False, id="not bought"),
    ],
)
def test_a_purchase_is_unsettled_while_it_may_change_by_itself(
    ledger: Ledger, state: str, fields: dict[str, Any], unsettled: bool
) -> None:
    made = bought(ledger, "n", state, asked=3, **fields)
    assert ledger.unsettled() == ((made,) if unsettled else ())


def test_the_tasks_of_a_cluster_are_those_of_its_purchases(ledger: Ledger) -> None:
    bought(ledger, "n1", "accepted", task_id="T-1")
    bought(ledger, "n2", "rejected")
    bought(ledger, "n3", "accepted", policy(name="b"), task_id="T-2")
    bought(ledger, "n4", "accepted", policy(cluster_id="C2"), task_id="T-3")
    assert ledger.own_tasks(CLUSTER_ID) == {"T-1", "T-2"}


# The whole


def test_a_ledger_is_in_use_once_something_was_sent(ledger: Ledger) -> None:
    freeze(ledger, "*")
    ledger.record_look(look(NOW, node()))
    ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
    ledger.record([evaluation()])
    bought(ledger, "imagined", "fulfilled", imagined=True, sent_at=NOW)
    made = reserve(ledger, intended())
    become(ledger, made, state="cancelled")
    assert not ledger.in_use()
    bought(ledger, "real", "rejected", sent_at=NOW)
    assert ledger.in_use()
    ledger.prune(at(days=900), 90 * DAY)
    assert ledger.in_use()


@pytest.mark.parametrize("name", MarkName)
def test_one_with_a_mark_is_too(ledger: Ledger, name: MarkName) -> None:
    assert not ledger.in_use()
    ledger.mark(name, NOW, "it was said")
    assert ledger.in_use()


def test_pruning_drops_old_decisions_and_samples_and_nothing_that_money_depends_on(ledger: Ledger) -> None:
    stop = freeze(ledger, "other", ends_at=at(days=900))
    made = bought(ledger, "n", "fulfilled")
    ledger.record([evaluation(load=4000, now=at(days=n)) for n in (1, 2)])
    ledger.record([evaluation(load=9999, now=at(days=3))])
    events = ledger.purchase_events(made.id)
    ledger.prune(at(days=92), 90 * DAY)
    assert [stored.decision.at for stored in ledger.decisions()] == [at(days=3), NOW]
    assert ledger.evaluation(ledger.decisions()[-1].id) is not None
    assert ledger.samples("edge", at(days=-9)) == ()
    assert ledger.latest()["edge"].at == at(days=3)
    assert ledger.purchases() == (made,)
    assert ledger.purchase_events(made.id) == events
    assert ledger.overrides(NOW) == (stop,)


def test_both_handles_see_one_ledger(handles: tuple[Ledger, Ledger]) -> None:
    first, second = handles
    made = reserve(first, intended())
    assert second.purchase(made.id) == made
    stop = freeze(second, "*")
    assert first.overrides(NOW) == (stop,)
    first.record([evaluation(now=at(minutes=1))])
    assert second.latest() == first.latest()


def test_a_policy_comes_back_to_the_letter(ledger: Ledger) -> None:
    strange = policy(description='quotes " and \\ and 中文', labels={"a": "b"}, cooldown=7 * MINUTE)
    made = evaluation(strange)
    ledger.record([made])
    (stored,) = ledger.decisions(policy="edge")
    again = ledger.evaluation(stored.id)
    assert again is not None
    assert again.facts.policy == strange


def test_a_name_that_no_policy_can_have_has_nothing(ledger: Ledger) -> None:
    assert (ledger.decisions(policy="edge\0"), ledger.purchases(policy="edge\0")) == ((), ())
