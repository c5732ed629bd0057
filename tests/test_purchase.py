"""How a purchase moves: every state under every evidence, what is adopted, and that no worker is lost count of."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoscaler.model import Accepted, Purchase, PurchaseState, RefusalClass, Refused, Task, Unclear, Worker
from autoscaler.purchase import (
    NOTHING_BOUGHT,
    OPEN,
    UNRESOLVED,
    Evidence,
    TooEarly,
    abandoned,
    answered,
    arrive_imagined,
    committed,
    done_of_order,
    next_state,
    quiet_at,
    settled_bought,
    settled_not_bought,
    terms,
)
from tests.build import arrivals, policy, purchase, task, worker
from tests.build import at as instant

S = PurchaseState
SENT = instant()
MINUTE = timedelta(minutes=1)
ENDED = frozenset({S.REJECTED, S.CANCELLED, S.FULFILLED, S.FAILED, S.EXPIRED, S.NOT_BOUGHT})


def in_state(state: str, **fields: object) -> Purchase:
    """A purchase of three workers, sent at noon."""
    return purchase(7, state, 3, SENT, **fields)  # type: ignore[arg-type]


def new(*names: str, at: datetime = SENT + 9 * MINUTE, **fields: object) -> tuple[Worker, ...]:
    """Workers created a minute after the send and first seen ``at``, ready unless said otherwise."""
    made = {"created_at": SENT + MINUTE, "first_seen_at": at, "ready_at": at, "last_ready_at": at} | fields
    return tuple(worker(name, **made) for name in names)


def unready(*names: str, **fields: object) -> tuple[Worker, ...]:
    return new(*names, ready=False, ready_at=None, last_ready_at=None, **fields)


def look(
    workers: Iterable[Worker] = (),
    own: Task | None = None,
    strangers: Iterable[Task] = (),
    claimed: Iterable[str] = (),
    at: datetime = SENT + 10 * MINUTE,
) -> Evidence:
    return Evidence(at, tuple(workers), own, tuple(strangers), frozenset(claimed))


def own(state: str, **fields: object) -> Task:
    return task("T-7", state, created_at=SENT, **fields)


def stranger(task_id: str = "T-9", at: datetime | None = SENT + MINUTE, state: str = "running") -> Task:
    return task(task_id, state, created_at=at)


def seen(before: Purchase, evidence: Evidence) -> Purchase:
    return next_state(before, evidence, evidence.at)


ALL_THREE = new("a", "b", "c")
OVERDUE = SENT + 90 * MINUTE

EVIDENCE: dict[str, Callable[[Purchase], Purchase]] = {
    "accepted": lambda p: answered(p, Accepted("T-7"), SENT),
    "refused": lambda p: answered(p, Refused(RefusalClass.LATER, "NoStock", "none left"), SENT),
    "unclear": lambda p: answered(p, Unclear("timed out"), SENT),
    "process gone": lambda p: abandoned(p, SENT),
    "nothing to see": lambda p: seen(p, look()),
    "all arrived": lambda p: seen(p, look(ALL_THREE)),
    "task succeeded, all listed": lambda p: seen(p, look(unready("a", "b", "c"), own("success"))),
    "task failed": lambda p: seen(p, look((), own("failed"))),
    "one task appeared": lambda p: seen(p, look((), strangers=[stranger()])),
    "overdue, first look": lambda p: seen(p, look(at=OVERDUE)),
    "overdue, second look": lambda p: seen(replace(p, overdue_at=OVERDUE), look(at=OVERDUE + timedelta(seconds=30))),
    "a person: bought": lambda p: settled_bought(p, 3, SENT + MINUTE),
    "a person: not bought": lambda p: settled_not_bought(p, quiet_at(p)),
}
FATE: dict[PurchaseState, dict[str, PurchaseState]] = {
    S.INTENDED: {"process gone": S.CANCELLED},
    S.SENDING: {"accepted": S.ACCEPTED, "refused": S.REJECTED, "unclear": S.UNKNOWN, "process gone": S.UNKNOWN},
    S.ACCEPTED: {
        "all arrived": S.FULFILLED,
        "task succeeded, all listed": S.FULFILLED,
        "task failed": S.FAILED,
        "overdue, second look": S.EXPIRED,
    },
    S.UNKNOWN: {
        "accepted": S.ACCEPTED,
        "refused": S.REJECTED,
        "all arrived": S.ACCEPTED,
        "task succeeded, all listed": S.ACCEPTED,
        "one task appeared": S.ACCEPTED,
        "a person: bought": S.ACCEPTED,
        "a person: not bought": S.NOT_BOUGHT,
    },
    S.NOT_BOUGHT: {"accepted": S.ACCEPTED, "refused": S.REJECTED},  # late answers
}


@pytest.mark.parametrize(
    ("state", "kind"), list(product(S, EVIDENCE)), ids=[f"{state}, {kind}" for state, kind in product(S, EVIDENCE)]
)
def test_every_state_under_every_evidence(state: PurchaseState, kind: str) -> None:
    before = in_state(state)
    if kind.startswith("a person") and state is not S.UNKNOWN:
        with pytest.raises(ValueError, match="nothing to settle"):
            EVIDENCE[kind](before)
        return
    assert EVIDENCE[kind](before).state is FATE.get(state, {}).get(kind, state)


def test_states_fall_into_open_and_ended() -> None:
    assert set(S) == OPEN | ENDED
    assert UNRESOLVED < OPEN
    assert NOTHING_BOUGHT < ENDED


class TestAnswers:
    def test_an_accepted_one_has_its_task(self) -> None:
        after = answered(in_state("sending"), Accepted("T-7", "R-1"), SENT + MINUTE)
        assert (after.task_id, after.request_id, after.answered_at) == ("T-7", "R-1", SENT + MINUTE)
        assert after.outstanding == 3

    def test_a_refused_one_says_why(self) -> None:
        after = answered(in_state("sending"), Refused(RefusalClass.ACCOUNT, "Forbidden", "no right"), SENT)
        assert (after.refusal, after.code, after.message) == (RefusalClass.ACCOUNT, "Forbidden", "no right")
        assert after.ended_at == SENT
        assert committed(after) == 0

    def test_a_late_acceptance_outweighs_a_persons_not_bought(self) -> None:
        settled = settled_not_bought(in_state("unknown"), quiet_at(in_state("unknown")))
        after = answered(settled, Accepted("T-7"), SENT + MINUTE)
        assert (after.state, after.task_id, after.ended_at) == (S.ACCEPTED, "T-7", None)

    def test_a_late_answer_outweighs_what_was_adopted(self) -> None:
        adopted = seen(in_state("unknown"), look(strangers=[stranger("T-9")]))
        assert answered(adopted, Accepted("T-7"), SENT + MINUTE).task_id == "T-7"

    def test_a_late_refusal_gives_back_what_was_adopted(self) -> None:  # case 23
        adopted = seen(in_state("unknown"), look(strangers=[stranger("T-9")]))
        found = seen(adopted, look(new("a", "b"), stranger("T-9")))
        assert found.arrived == 2
        after = answered(found, Refused(RefusalClass.BUSY, "InvalidStatus", "busy"), SENT + MINUTE)
        assert (after.state, after.arrivals, after.task_id, after.adopted) == (S.REJECTED, (), None, False)

    def test_a_late_refusal_gives_back_what_a_person_settled(self) -> None:
        after = answered(settled_bought(in_state("unknown"), 1, SENT), Refused(RefusalClass.BUSY, "X", ""), SENT)
        assert (after.state, after.failed) == (S.REJECTED, 0)

    def test_an_unclear_answer_settles_nothing_that_was_adopted(self) -> None:
        adopted = seen(in_state("unknown"), look(strangers=[stranger("T-9")]))
        assert answered(adopted, Unclear("timed out"), SENT + MINUTE) == adopted


FIVE = purchase(8, "unknown", 5, SENT)

ADOPTION: dict[str, tuple[Purchase, Evidence, str]] = {
    "exactly one unknown task, created as it was sent": (
        in_state("unknown"),
        look(strangers=[stranger(at=SENT)]),
        "accepted, task T-9, arrived 0",
    ),
    "a task of 60 s before by the cloud's clock": (
        in_state("unknown"),
        look(strangers=[stranger(at=SENT - timedelta(seconds=60))]),
        "accepted, task T-9, arrived 0",
    ),
    "a task of more than 60 s before": (
        in_state("unknown"),
        look(strangers=[stranger(at=SENT - timedelta(seconds=61))]),
        "unknown",
    ),
    "a task of five minutes after": (
        in_state("unknown"),
        look(strangers=[stranger(at=SENT + 5 * MINUTE)]),
        "accepted, task T-9, arrived 0",
    ),
    "a task of more than five minutes after": (
        in_state("unknown"),
        look(strangers=[stranger(at=SENT + 5 * MINUTE + timedelta(seconds=1))]),
        "unknown",
    ),
    "a task of a colleague five minutes later, and its three workers": (  # case 23
        FIVE,
        look(ALL_THREE, strangers=[stranger(at=SENT + 6 * MINUTE)]),
        "unknown",
    ),
    "two tasks, one of them a colleague's": (  # case 23
        FIVE,
        look(ALL_THREE, strangers=[stranger("T-8"), stranger("T-9")]),
        "unknown",
    ),
    "one task in time and one later": (
        in_state("unknown"),
        look(strangers=[stranger("T-8"), stranger("T-9", at=SENT + 9 * MINUTE)]),
        "unknown",
    ),
    "its task, while a colleague's may still be the first to show": (
        in_state("unknown"),
        look(strangers=[stranger()], at=SENT + 5 * MINUTE - timedelta(seconds=1)),
        "unknown",
    ),
    "a task of another number of workers: a colleague's": (
        in_state("unknown"),
        look(strangers=[task("T-9", "success", created_at=SENT + MINUTE, succeeded=("a", "b"))]),
        "unknown",
    ),
    "a task without a time": (in_state("unknown"), look(ALL_THREE, strangers=[stranger(at=None)]), "unknown"),
    "a task that was there before": (
        in_state("unknown", tasks_before=("T-9",)),
        look(strangers=[stranger()]),
        "unknown",
    ),
    "new workers, and no task to see": (
        in_state("unknown"),
        look(ALL_THREE),
        "accepted, task None, arrived 3",
    ),
    "fewer workers than were asked for: a colleague's (case 23)": (FIVE, look(new("a", "b")), "unknown"),
    "more workers than were asked for": (in_state("unknown"), look(new("a", "b", "c", "d")), "unknown"),
    "workers created before the send": (
        in_state("unknown"),
        look(new("a", created_at=SENT - timedelta(seconds=1))),
        "unknown",
    ),
    "workers seen before the send": (in_state("unknown"), look(new("a", at=SENT)), "unknown"),
    "workers of another type": (in_state("unknown"), look(new("a", instance_type="ens.sn1.big")), "unknown"),
    "workers of another purchase": (in_state("unknown"), look(ALL_THREE, claimed="abc"), "unknown"),
    "workers that nobody knows the creation of": (in_state("unknown"), look(new("a", created_at=None)), "unknown"),
    "nothing at all, a day later": (in_state("unknown"), look(at=SENT + timedelta(days=1)), "unknown"),
}


@pytest.mark.parametrize(("before", "evidence", "expected"), ADOPTION.values(), ids=ADOPTION)
def test_an_unknown_purchase_is_settled_by(before: Purchase, evidence: Evidence, expected: str) -> None:
    after = seen(before, evidence)
    if expected == "unknown":
        assert after == before
    else:
        assert f"{after.state}, task {after.task_id}, arrived {after.arrived}" == expected
        assert after.adopted


class TestPartialFailureBeforeTheListShowsIt:
    FAILED = task("T-7", "failed", succeeded=("a", "b"), failed=("c",))
    ACCEPTED = in_state("accepted", task_id="T-7")

    def test_those_that_came_stay_in_flight_until_they_are_listed(self) -> None:
        after = seen(self.ACCEPTED, look(own=self.FAILED))
        assert (after.state, after.arrived, after.failed, after.outstanding) == (S.ACCEPTED, 0, 1, 2)

    def test_then_it_ends_with_what_it_brought(self) -> None:
        after = seen(seen(self.ACCEPTED, look(own=self.FAILED)), look(new("a", "b"), own=self.FAILED))
        assert (after.state, after.arrived, after.failed) == (S.FAILED, 2, 1)

    def test_and_at_its_timeout_in_any_case(self) -> None:
        after = seen(self.ACCEPTED, look(own=self.FAILED, at=OVERDUE))
        assert (after.state, after.arrived, after.failed) == (S.FAILED, 0, 3)


class TestQuietPeriod:
    QUIET = SENT + 80 * MINUTE  # 15 min a signature lives, 60 min timeout_mins, 5 min margin
    ALONE = in_state("unknown", terms=terms(policy(settle_unknown="after_quiet_period")))

    def test_a_person_may_not_say_so_earlier(self) -> None:  # case 21
        with pytest.raises(TooEarly) as refusal:
            settled_not_bought(in_state("unknown"), self.QUIET - timedelta(seconds=1))
        assert refusal.value.earliest == self.QUIET

    def test_a_person_may_say_so_then(self) -> None:
        after = settled_not_bought(in_state("unknown"), self.QUIET)
        assert (after.state, after.ended_at) == (S.NOT_BOUGHT, self.QUIET)

    def test_the_policy_says_so_by_itself_if_it_wishes(self) -> None:
        assert seen(self.ALONE, look(at=self.QUIET)).state is S.NOT_BOUGHT

    @pytest.mark.parametrize(
        "evidence",
        [
            look(at=QUIET - timedelta(seconds=1)),
            look(strangers=[stranger(at=SENT + 9 * MINUTE)], at=QUIET),
            look(new("a", "b", "c", "d"), at=QUIET),
            look(new("a", created_at=None), at=QUIET),
        ],
        ids=["too early", "beside a foreign task", "beside too many workers", "beside a worker nobody can place"],
    )
    def test_the_policy_does_not_say_so(self, evidence: Evidence) -> None:
        assert seen(self.ALONE, evidence).state is S.UNKNOWN

    def test_a_look_from_the_future_does_not_end_it(self) -> None:
        assert next_state(self.ALONE, look(at=self.QUIET), SENT).state is S.UNKNOWN


class TestAPersonSaysBought:
    def test_fewer_than_asked(self) -> None:
        after = settled_bought(in_state("unknown"), 2, SENT + MINUTE)
        assert (after.state, after.outstanding, after.failed, committed(after)) == (S.ACCEPTED, 2, 1, 3)

    def test_it_is_whole_when_those_arrived(self) -> None:
        after = seen(settled_bought(in_state("unknown"), 2, SENT + MINUTE), look(ALL_THREE))
        assert (after.state, after.arrived) == (S.FULFILLED, 2)

    @pytest.mark.parametrize("bought", [0, 4])
    def test_not_another_number(self, bought: int) -> None:
        with pytest.raises(ValueError, match="1 to 3"):
            settled_bought(in_state("unknown"), bought, SENT)


class TestArrivals:
    """An accepted purchase of three, look by look."""

    ACCEPTED = in_state("accepted", task_id="T-7")

    def test_some_listed_settle_nothing(self) -> None:  # case 24
        after = seen(self.ACCEPTED, look(new("a", "b"), own("running")))
        assert (after.state, after.arrived, after.outstanding) == (S.ACCEPTED, 2, 1)

    def test_listed_but_not_ready_is_not_the_end(self) -> None:
        assert seen(self.ACCEPTED, look(unready("a", "b", "c"), own("running"))).state is S.ACCEPTED

    def test_a_task_that_succeeded_is_not_enough_without_the_workers(self) -> None:
        after = seen(self.ACCEPTED, look((), own("success", succeeded=("a", "b", "c"))))
        assert (after.state, after.outstanding) == (S.ACCEPTED, 3)

    def test_its_task_names_whose_workers_are_whose(self) -> None:
        evidence = look(new("a", "b", "c", "x", "y"), own("running", succeeded=("x",), pending=("y",)))
        assert {arrival.instance_id for arrival in seen(self.ACCEPTED, evidence).arrivals} == {"x", "y"}

    def test_a_guess_is_taken_back_when_the_task_names_others(self) -> None:
        guessed = seen(self.ACCEPTED, look(new("a")))
        after = seen(guessed, look(new("a", "x"), own("running", pending=("x",))))
        assert [arrival.instance_id for arrival in after.arrivals] == ["x"]

    def test_never_more_than_were_asked_for(self) -> None:
        assert seen(self.ACCEPTED, look(new("a", "b", "c", "d"))).arrived == 3

    def test_not_what_another_purchase_brought(self) -> None:
        assert seen(self.ACCEPTED, look(ALL_THREE, claimed=("a",))).arrived == 2

    def test_the_same_look_again_brings_nothing_more(self) -> None:
        evidence = look(new("a", "b"), own("running", succeeded=("a",), pending=("b",)))
        once = seen(self.ACCEPTED, evidence)
        assert seen(once, evidence) == once

    def test_one_that_a_listing_forgot_stays_arrived(self) -> None:
        assert seen(seen(self.ACCEPTED, look(new("a"))), look()).arrived == 1

    def test_partial_success_fails_for_the_rest(self) -> None:
        evidence = look(new("a", "b"), own("success", succeeded=("a", "b"), failed=("c",)))
        after = seen(self.ACCEPTED, evidence)
        assert (after.state, after.arrived, after.failed, after.failures) == (S.FAILED, 2, 1, ("c",))
        assert committed(after) == 3

    def test_partial_success_waits_until_the_others_are_listed(self) -> None:
        after = seen(self.ACCEPTED, look(new("a"), own("success", succeeded=("a", "b"), failed=("c",))))
        assert (after.state, after.arrived, after.failed, after.outstanding) == (S.ACCEPTED, 1, 1, 1)

    def test_a_failed_task_keeps_what_was_ready_and_gives_up_the_rest(self) -> None:
        evidence = look(new("a") + unready("b"), own("failed", error="NoStock: none left"))
        after = seen(self.ACCEPTED, evidence)
        assert (after.state, after.arrived, after.failed, after.failures) == (S.FAILED, 1, 2, ("b",))
        assert after.message == "NoStock: none left"

    def test_an_adopted_one_is_not_ended_by_its_tasks_failure(self) -> None:
        adopted = seen(in_state("unknown"), look(strangers=[stranger()]))
        after = seen(adopted, look(new("a"), stranger(state="failed")))
        assert (after.state, after.arrived, after.outstanding) == (S.ACCEPTED, 1, 2)

    def test_an_adopted_one_ends_when_all_arrived(self) -> None:
        adopted = seen(in_state("unknown"), look(strangers=[stranger()]))
        assert seen(adopted, look(ALL_THREE, stranger(state="success"))).state is S.FULFILLED


class TestExpiry:
    ACCEPTED = in_state("accepted")

    def test_two_looks_after_the_time_expire_it(self) -> None:  # case 26
        first = seen(self.ACCEPTED, look(new("a"), at=OVERDUE))
        second = seen(first, look(new("a"), at=OVERDUE + timedelta(seconds=30)))
        assert (first.state, first.overdue_at, second.state) == (S.ACCEPTED, OVERDUE, S.EXPIRED)
        assert (second.arrived, second.outstanding, committed(second)) == (1, 2, 3)

    def test_the_same_look_twice_is_one(self) -> None:
        first = seen(self.ACCEPTED, look(at=OVERDUE))
        assert seen(first, look(at=OVERDUE + timedelta(seconds=29))).state is S.ACCEPTED

    def test_before_its_time_no_look_counts(self) -> None:
        assert seen(self.ACCEPTED, look(at=OVERDUE - timedelta(seconds=1))).overdue_at is None

    @pytest.mark.parametrize("late", [-1, 1], ids=["before its time", "after it"])
    def test_a_look_by_a_clock_that_was_ahead_counts_for_none(self, late: int) -> None:
        ahead = seen(self.ACCEPTED, look(at=OVERDUE + 120 * MINUTE))
        first = seen(ahead, look(at=OVERDUE + late * MINUTE))
        assert (first.state, first.overdue_at) == (S.ACCEPTED, None if late < 0 else OVERDUE + MINUTE)
        second = seen(first, look(at=OVERDUE + 2 * MINUTE))
        third = seen(second, look(at=OVERDUE + 3 * MINUTE))
        assert (second.state, third.state) == ((S.ACCEPTED, S.EXPIRED) if late < 0 else (S.EXPIRED, S.EXPIRED))

    def test_all_that_arrive_between_the_looks_fulfil_it(self) -> None:
        first = seen(self.ACCEPTED, look(at=OVERDUE))
        assert seen(first, look(ALL_THREE, at=OVERDUE + MINUTE)).state is S.FULFILLED


class TestLatecomers:
    HOUR_LATER = SENT + 70 * MINUTE

    def test_of_a_failed_task_that_named_them(self) -> None:  # case 25
        failed = seen(in_state("accepted"), look(unready("a", "b"), own("failed", failed=("a", "b", "c"))))
        assert (failed.arrived, failed.failed) == (0, 3)
        late = seen(failed, look(new("a", "b"), own("failed", failed=("a", "b", "c")), at=self.HOUR_LATER))
        assert (late.state, late.arrived, late.failed, late.failures) == (S.FAILED, 2, 1, ("c",))
        assert committed(late) == committed(failed) == 3

    def test_of_a_failed_task_that_named_nobody(self) -> None:  # case 25
        failed = seen(in_state("accepted"), look((), own("failed")))
        late = seen(failed, look(new("a", "b", at=self.HOUR_LATER), own("failed"), at=self.HOUR_LATER))
        assert (late.state, late.arrived, late.failed, late.outstanding) == (S.FAILED, 2, 1, 0)

    def test_what_is_listed_and_never_ready_did_not_join(self) -> None:
        failed = seen(in_state("accepted"), look((), own("failed")))
        assert seen(failed, look(unready("a"), own("failed"))) == failed

    def test_of_an_expired_one(self) -> None:
        expired = in_state("expired", arrivals=arrivals(7, 1))
        late = seen(expired, look(new("a", at=SENT + 100 * MINUTE)))
        assert (late.state, late.arrived, late.outstanding) == (S.EXPIRED, 2, 1)

    def test_no_more_than_were_asked_for(self) -> None:
        assert seen(in_state("expired"), look(new("a", "b", "c", "d"))).arrived == 3

    def test_none_that_another_purchase_brought(self) -> None:
        assert seen(in_state("expired"), look(ALL_THREE, claimed="abc")).arrived == 0


class TestImagined:
    ACCEPTED = in_state("accepted", imagined=True)

    def test_it_arrives_whole_after_assumed_join(self) -> None:  # case 39
        after = arrive_imagined(self.ACCEPTED, SENT + 10 * MINUTE)
        assert (after.state, after.arrived, after.ended_at) == (S.FULFILLED, 3, SENT + 10 * MINUTE)
        assert {arrival.at for arrival in after.arrivals} == {SENT + 10 * MINUTE}

    def test_not_earlier(self) -> None:
        assert arrive_imagined(self.ACCEPTED, SENT + 10 * MINUTE - timedelta(seconds=1)) == self.ACCEPTED

    def test_a_real_one_never_arrives_by_imagination(self) -> None:
        real = in_state("accepted")
        assert arrive_imagined(real, SENT + timedelta(days=1)) == real

    def test_it_takes_no_real_worker(self) -> None:
        assert seen(self.ACCEPTED, look(ALL_THREE)) == self.ACCEPTED


ORDERED: dict[str, tuple[Purchase, int]] = {
    "one being sent may bring all": (in_state("sending", order_id=4), 3),
    "one of unknown outcome may bring all": (in_state("unknown", order_id=4), 3),
    "an accepted one may bring all": (in_state("accepted", order_id=4), 3),  # case 16
    "an expired one may still bring all": (in_state("expired", order_id=4), 3),
    "a failed one brought what arrived": (in_state("failed", order_id=4, arrivals=arrivals(7, 1), failed=2), 1),
    "what a person settled as fewer counts as fewer": (settled_bought(in_state("unknown", order_id=4), 2, SENT), 2),
    "a rejected one brings nothing": (in_state("rejected", order_id=4), 0),
    "a cancelled one brings nothing": (in_state("cancelled", order_id=4), 0),
    "one surely not bought brings nothing": (in_state("not_bought", order_id=4), 0),
    "another order's is not its own": (in_state("accepted", order_id=5), 0),
    "one without an order is nobody's": (in_state("accepted"), 0),
}


@pytest.mark.parametrize(("bought", "done"), ORDERED.values(), ids=ORDERED)
def test_what_is_done_of_an_order(bought: Purchase, done: int) -> None:
    assert done_of_order(4, [bought]) == done


NAMES = tuple("abcdefg")
names = st.sets(st.sampled_from(NAMES)).map(sorted)


class APurchase(RuleBasedStateMachine):
    """Any evidence in any order: no worker is lost count of, and an ended purchase stays ended."""

    def __init__(self) -> None:
        super().__init__()
        self.purchase = in_state("sending")
        self.at = SENT
        self.ready: set[str] = set()

    @initialize(state=st.sampled_from(["sending", "unknown", "accepted", "accepted", "failed", "expired"]))
    def begins(self, state: str) -> None:
        failed = 3 if state == "failed" else 0
        self.purchase = in_state(state, terms=terms(policy(settle_unknown="after_quiet_period")), failed=failed)

    def becomes(self, after: Purchase, *, may_reopen: bool = False) -> None:
        before, self.purchase = self.purchase, after
        assert committed(after) in (0, after.asked)
        if before.state in ENDED and not may_reopen:
            assert after.state is before.state
            assert after.ended_at == before.ended_at
        if before.state is not S.SENDING:
            assert after.state not in (S.INTENDED, S.SENDING)
        if before.state not in UNRESOLVED:
            assert after.state not in UNRESOLVED

    @rule(minutes=st.integers(0, 60))
    def time_passes(self, minutes: int) -> None:
        self.at += minutes * MINUTE

    @rule(answer=st.sampled_from([Accepted("T-7"), Refused(RefusalClass.LATER, "X", ""), Unclear("?")]))
    def an_answer_comes(self, answer: Accepted | Refused | Unclear) -> None:
        reopens = self.purchase.state is S.NOT_BOUGHT
        self.becomes(answered(self.purchase, answer, self.at), may_reopen=reopens)

    @rule()
    def its_process_ends(self) -> None:
        self.becomes(abandoned(self.purchase, self.at))

    @precondition(lambda self: self.purchase.state is S.UNKNOWN)
    @rule(bought=st.integers(1, 3))
    def a_person_says_bought(self, bought: int) -> None:
        self.becomes(settled_bought(self.purchase, bought, self.at))

    @rule(
        listed=names,
        ready=names,
        claimed=names,
        succeeded=names,
        failed=names,
        pending=names,
        state=st.sampled_from([None, "running", "success", "failed"]),
        foreign=st.lists(st.sampled_from([stranger("T-7"), stranger("T-8"), stranger("T-9", at=None)]), unique=True),
    )
    def a_look_comes(
        self,
        listed: list[str],
        ready: list[str],
        claimed: list[str],
        succeeded: list[str],
        failed: list[str],
        pending: list[str],
        state: str | None,
        foreign: list[Task],
    ) -> None:
        self.ready |= set(ready)
        workers = [w for name in listed for w in (new(name) if name in self.ready else unready(name))]
        fate = None
        if state is not None:
            fate = own(state, succeeded=tuple(succeeded), failed=tuple(failed), pending=tuple(pending))
        self.becomes(seen(self.purchase, look(workers, fate, foreign, claimed, self.at)))

    @invariant()
    def nothing_is_lost_count_of(self) -> None:
        now = self.purchase
        assert now.asked == now.arrived + now.failed + now.outstanding
        assert min(now.arrived, now.failed, now.outstanding) >= 0

    @invariant()
    def an_arrival_is_one_worker_and_no_failure(self) -> None:
        arrived = [arrival.instance_id for arrival in self.purchase.arrivals]
        assert len(arrived) == len(set(arrived))
        assert not set(arrived) & set(self.purchase.failures)

    @invariant()
    def what_has_ended_says_when(self) -> None:
        assert (self.purchase.ended_at is not None) == (self.purchase.state in ENDED)


TestAnyEvidence = APurchase.TestCase
TestAnyEvidence.settings = settings(max_examples=400, stateful_step_count=12, deadline=None)
