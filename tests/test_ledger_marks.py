"""What happened to a ledger as a whole, in every form of it: begun, copied, restored, reviewed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autoscaler.decision import Evaluation, decide
from autoscaler.facts import Facts
from autoscaler.ledger import LedgerUnavailable, Mark, MarkName
from autoscaler.model import History, Override, OverrideKind, Purchase, PurchaseState, Restoral
from tests.build import CLUSTER_ID, NOW, at, capacity, facts, policy, purchase, workers
from tests.ledger_forms import Handles, Ledger

HOLDER = "daemon-1"
BEGUN, BACKUP, RESTORED, REVIEWED = MarkName


def reserve(ledger: Ledger, nonce: str = "n-1", **given: object) -> Purchase:
    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        known: Facts = facts(load=9999, history=history, capacity=capacity(workers(10)))
        wish = purchase(0, "intended", nonce=nonce, signed_at=NOW, reserved_at=NOW)
        return Evaluation(known, decide(known)), replace(wish, **given)  # type: ignore[arg-type]  # by name

    ledger.lease(HOLDER, [CLUSTER_ID], timedelta(minutes=1))
    _, made = ledger.reserve(policy(), NOW, HOLDER, propose)
    assert made is not None
    return made


def test_a_ledger_that_nothing_happened_to_lacks_nothing(ledger: Ledger) -> None:
    assert (ledger.marks(), ledger.restoral(NOW), ledger.take_up(NOW)) == ((), None, None)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([BEGUN], Restoral(at(minutes=1), begun=True)),
        ([RESTORED], Restoral(at(minutes=1))),
        ([BACKUP], Restoral(at(hours=9), copied_at=at(minutes=1))),
        ([BACKUP, RESTORED], Restoral(at(minutes=2), copied_at=at(minutes=1))),
        ([BACKUP, RESTORED, BACKUP], Restoral(at(hours=9), copied_at=at(minutes=3))),
        ([BACKUP, RESTORED, RESTORED], Restoral(at(minutes=3))),
        ([BEGUN, REVIEWED], None),
        ([RESTORED, REVIEWED], None),
        ([RESTORED, REVIEWED, BACKUP], Restoral(at(hours=9), copied_at=at(minutes=3))),
        ([RESTORED, REVIEWED, RESTORED], Restoral(at(minutes=3))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_its_marks_say_that_it_may_lack(handles: Handles, names: list[MarkName], expected: Restoral) -> None:
    one, other = handles
    for minute, name in enumerate(names, start=1):
        one.mark(name, at(minutes=minute), "because", "ana")
    assert other.marks() == tuple(Mark(name, at(minutes=n), "because", "ana") for n, name in enumerate(names, start=1))
    assert other.restoral(at(hours=9)) == expected
    assert other.histories([policy()], at(hours=9))["edge"].restoral == expected


def test_the_first_daemon_on_a_copy_restores_it(handles: Handles) -> None:
    one, other = handles
    one.mark(BACKUP, NOW, "autoscaler ledger backup")
    restoral = Restoral(at(hours=1), copied_at=NOW)
    assert one.take_up(at(hours=1)) == restoral
    assert other.take_up(at(hours=2)) is None
    assert other.restoral(at(hours=3)) == restoral
    assert [(mark.name, mark.author) for mark in one.marks()] == [(BACKUP, None), (RESTORED, None)]


def test_a_copy_is_not_taken_up_by_a_clock_that_is_behind_its_own_time(handles: Handles) -> None:
    one, other = handles
    one.mark(BACKUP, NOW, "autoscaler ledger backup")
    with pytest.raises(LedgerUnavailable, match=r"copied at 2026-06-01 12:00:00Z, and it is 1970-01-01.*set the clock"):
        one.take_up(datetime(1970, 1, 1, tzinfo=UTC))
    assert len(other.marks()) == 1
    assert other.take_up(at(seconds=-30)) == Restoral(at(seconds=-30), copied_at=NOW)


@pytest.mark.parametrize("name", [BEGUN, RESTORED])
def test_no_clock_that_is_behind_dates_it_earlier(ledger: Ledger, name: MarkName) -> None:
    """What a purchase may still be on its way for counts from the mark: an earlier one would end that early."""
    ledger.mark(name, NOW, "because", "ana")
    assert ledger.take_up(at(hours=-2)) is None
    assert ledger.restoral(NOW) == Restoral(NOW, begun=name is BEGUN)


def test_a_reservation_is_told_of_it(ledger: Ledger) -> None:
    ledger.mark(RESTORED, at(minutes=-1), "the disk is lost", "ana")
    told = []

    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, None]:
        told.append(history.restoral)
        known = facts(load=9999, history=history, capacity=capacity(workers(10)))
        return Evaluation(known, decide(known)), None

    evaluation, _ = ledger.reserve(policy(), NOW, HOLDER, propose)
    assert told == [Restoral(at(minutes=-1))]
    assert evaluation.decision.reason == "restored"
    (stored,) = ledger.decisions()
    kept = ledger.evaluation(stored.id)
    assert kept == evaluation
    assert kept is not None
    assert decide(kept.facts) == kept.decision


def test_what_a_copy_was_about_to_send_is_unknown(ledger: Ledger) -> None:
    real, dry = reserve(ledger), reserve(ledger, "n-2", imagined=True)
    ledger.mark(RESTORED, at(seconds=1), "dump of 03:00", "ana")
    found = ledger.purchase(real.id)
    assert found is not None
    assert (found.state, found.message) == (
        PurchaseState.UNKNOWN,
        "the ledger is a copy made as it was about to be sent",
    )
    assert [(event.after, event.author) for event in ledger.purchase_events(real.id)] == [
        (PurchaseState.INTENDED, None),
        (PurchaseState.UNKNOWN, "ana"),
    ]
    assert ledger.begin_sending(real, HOLDER, at(seconds=2)) == "it is unknown already"
    assert ledger.purchase(dry.id) == dry


def test_an_order_of_a_copy_is_of_before_it_was_restored_whatever_the_clock_of_its_author(ledger: Ledger) -> None:
    given = ("edge",), 5, "ana", "derby"
    before, ahead = (
        ledger.add_override(OverrideKind.BUY, *given, at(minutes=minute), at(days=2)) for minute in (-5, 60)
    )
    freeze = ledger.add_override(OverrideKind.FREEZE, ("*",), None, "ana", "bill", at(minutes=60), at(days=2))
    ledger.mark(RESTORED, at(minutes=30), "dump of 03:00", "bo")
    assert ledger.overrides(at(minutes=30)) == (before, freeze)  # the first is held by its time
    ended = ledger.override(ahead.id)
    assert (ended.ended_at, ended.ended_by) == (at(minutes=30), "ledger")
    assert "served" in (ended.ended_reason or "")
    since = ledger.add_override(OverrideKind.BUY, *given, at(minutes=61), at(days=2))
    assert since in ledger.overrides(at(minutes=61))


def test_what_was_reserved_in_a_copy_that_nobody_took_up_is_not_sent(ledger: Ledger) -> None:
    made = reserve(ledger)
    ledger.mark(BACKUP, NOW, "autoscaler ledger backup")
    why = "the ledger was restored after it was reserved"
    assert ledger.begin_sending(made, HOLDER, at(seconds=1)) == why


def test_what_is_reserved_in_a_ledger_that_was_just_begun_is_sent(ledger: Ledger) -> None:
    ledger.mark(BEGUN, at(minutes=-1), "run --init")
    assert ledger.begin_sending(reserve(ledger), HOLDER, at(seconds=1)) is None
