"""What surfaces read from the ledger, and the orders that come in through them; the contract of every form of it."""

from datetime import datetime

import pytest

from autoscaler.decision import Evaluation
from autoscaler.ledger import NotFound
from autoscaler.model import Arrival, History, Override, OverrideKind, PaidWorker
from autoscaler.override import KeyReused, OrderKey
from tests.build import CLUSTER_ID, NOW, at, policy, reading
from tests.ledger_forms import Handles, Ledger
from tests.test_ledger import (
    HOLDER,
    HOUR,
    MINUTE,
    SECOND,
    bought,
    evaluation,
    freeze,
    intended,
    look,
    node,
    reserve,
)


def test_a_repeated_request_for_an_order_is_one_order(handles: Handles) -> None:
    first, second = handles

    def give(ledger: Ledger, author: str = "ana", key: str = "k-1", digest: str = "d", now: datetime = NOW) -> Override:
        asked = OrderKey(key, digest)
        return ledger.add_override(OverrideKind.FREEZE, ["*"], None, author, "derby", now, now + HOUR, key=asked)

    made = give(first)
    assert give(second, now=at(minutes=5)) == made
    assert [give(first, author="bo").id, give(first, key="k-2").id] == [2, 3]
    with pytest.raises(KeyReused, match="order 1;"):
        give(second, digest="other")
    assert len(first.override_history()) == 3
    second.end_override(2, "bo", "over", NOW)
    assert give(second, author="bo").ended_at == NOW
    assert give(first, now=at(hours=24) - SECOND) == made
    assert give(first, digest="other", now=at(hours=24)).id == 4


def test_the_history_of_orders_is_paged_newest_first(ledger: Ledger) -> None:
    made = [freeze(ledger, name) for name in "abc"]
    ended = ledger.end_override(2, "bo", "over", at(minutes=1))
    assert ledger.override_history(limit=2) == (made[2], ended)
    assert ledger.override_history(before_id=2) == (made[0],)
    assert ledger.override(2) == ended
    with pytest.raises(NotFound, match="override 9"):
        ledger.override(9)


def test_what_checks_read_is_told_of_the_latest_evaluation(ledger: Ledger) -> None:
    assert ledger.readings() == {}
    ledger.record([evaluation(load=4000, now=at(minutes=-2)), evaluation(policy(name="other"), load=100)])
    ledger.record([evaluation(load=9999), evaluation(load=1, now=at(minutes=-1))])  # the latter comes late
    assert ledger.readings() == {"edge": (reading(9999),), "other": (reading(100),)}


def test_purchases_of_orders(ledger: Ledger) -> None:
    for id, order_id in enumerate([None, 1, 2, 1], start=1):
        bought(ledger, f"n-{id}", "fulfilled", order_id=order_id)
    assert [p.id for p in ledger.purchases(orders=[1])] == [4, 2]
    assert [p.id for p in ledger.purchases(orders=[2, 7])] == [3]
    assert ledger.purchases(orders=[]) == ()


def test_paid_workers_come_with_what_tells_when_their_term_ends(ledger: Ledger) -> None:
    made = bought(ledger, "n", "fulfilled", arrivals=(Arrival("i-2", NOW),))
    ledger.record_look(
        look(
            NOW,
            node("i-1", expires_at=at(days=3)),
            node("i-2", expires_at=None),
            node("i-3", expires_at=at(days=9)),
            node("i-4", expires_at=at(days=7)),
        )
    )
    kind = "ens.sn1.tiny"
    assert ledger.paid_workers(at(days=7)) == (
        PaidWorker(CLUSTER_ID, "i-1", kind, at(days=3)),
        PaidWorker(CLUSTER_ID, "i-2", kind, None, "edge", made.terms, made.reserved_at),
    )


def test_what_was_ordered_before_is_obeyed_by_a_clock_that_is_behind(handles: Handles) -> None:
    first, second = handles
    waiting = reserve(first, intended())
    first.lease(HOLDER, [CLUSTER_ID], MINUTE)
    freeze(second, "*", ends_at=at(hours=2))  # by a clock that says noon
    behind = at(seconds=-20)
    told: list[tuple[Override, ...]] = []

    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, None]:
        told.append(orders)
        return evaluation(now=behind), None

    first.reserve(policy(), behind, HOLDER, propose)
    assert [order.kind for order in told[0]] == [OverrideKind.FREEZE]
    assert first.begin_sending(waiting, HOLDER, behind) == "frozen by ana: derby"
