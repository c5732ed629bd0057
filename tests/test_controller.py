"""Evaluating policies: what is gathered for each, what comes of it, and that one that fails holds up no other."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from structlog.testing import capture_logs

from autoscaler.controller import Controller, Reader, questions
from autoscaler.decision import Evaluation
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerUnavailable, MarkName, MemoryLedger
from autoscaler.model import Capacity, GapReason, History, Node, Outcome, OverrideKind, Purchase, Reading
from autoscaler.policy import CapacityQuery, Policy
from tests.build import NOW, arrivals, at, gap, per_worker, policy, purchase, schedule, setpoint, task
from tests.fakes import Clock, FakeCloud, FakeReader, FlakyLedger, Observed, node, nodes, until

LOST = LedgerUnavailable("the ledger cannot be used: disk I/O error", "see that the database answers")
SESSIONS = "sum(live_sessions)"
READY = "sum(edge_workers_ready)"
Log = list[Any]


class Buyer:
    """In the place of purchasing: takes what it is given."""

    def __init__(self) -> None:
        self.calls: list[Evaluation] = []
        self.next_error: Exception | None = None
        self.news = True

    def buy(self, evaluation: Evaluation) -> tuple[Evaluation, bool]:
        self.calls.append(evaluation)
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        return evaluation, self.news


class Desk:
    """A controller with fakes around it."""

    def __init__(self, *policies: Policy, **readers: Reader) -> None:
        self.clock = Clock()
        self.memory = MemoryLedger(clock=self.clock)
        self.ledger = FlakyLedger(self.memory)
        self.cloud = FakeCloud(self.clock)
        self.reader = FakeReader(**{SESSIONS: 4000})
        self.buyer = Buyer()
        self.observed = Observed()
        self.policies = policies or (policy(),)
        self.readers = {"default": self.reader, **readers}
        for each in self.policies:
            self.cloud.nodes[each.cluster_id] = nodes(10, prefix=each.cluster_id)
        self.controller = Controller(
            readers={}, cloud=self.cloud, ledger=self.ledger, purchasing=self.buyer, observer=self.observed
        )
        self.controller.know(self.policies, self.readers)

    def round(self) -> dict[str, Evaluation]:
        """Evaluate all policies; the evaluations by policy."""
        done = self.controller.evaluate(self.policies, self.clock())
        return {evaluation.decision.policy: evaluation for evaluation in done}

    def one(self) -> Evaluation:
        (evaluation,) = self.round().values()
        return evaluation

    def reason(self) -> Reason:
        return self.one().decision.reason

    def capacity(self) -> Capacity:
        capacity = self.one().facts.capacity
        assert isinstance(capacity, Capacity), capacity
        return capacity


@pytest.fixture(autouse=True)
def logs() -> Iterator[Log]:
    with capture_logs() as captured:
        yield captured


def events(logs: Log, event: str) -> Log:
    return [entry for entry in logs if entry["event"] == event]


# --- what is gathered ---


def test_what_is_known_of_a_policy_is_gathered_into_its_facts() -> None:
    desk = Desk()
    desk.memory.add_override(OverrideKind.FLOOR, ["edge"], 5, "ana", "derby", NOW, at(hours=1))
    desk.memory.add_override(OverrideKind.FLOOR, ["other"], 50, "ana", "not ours", NOW, at(hours=1))
    facts = desk.one().facts
    assert [(reading.check, reading.load) for reading in facts.readings] == [("sessions", Reading(Fraction(4000), NOW))]
    assert (facts.now, facts.endpoint, facts.credential) == (NOW, desk.cloud.endpoint, "credential-1")
    assert [order.workers for order in facts.overrides] == [5]
    assert isinstance(facts.capacity, Capacity)
    assert len(facts.capacity.workers) == 10


def test_a_policy_asks_for_its_checks_what_their_means_cover_and_its_capacity_but_not_for_windows() -> None:
    asked = policy(
        checks=(per_worker(), setpoint(over="count(edge_utilization)"), schedule()),
        capacity=CapacityQuery(query=READY),
    )
    assert [question.query for question in questions(asked)] == [
        SESSIONS,
        "avg(edge_utilization)",
        "count(edge_utilization)",
        READY,
    ]


def test_each_server_is_asked_once_for_all_its_policies_and_equal_questions_once() -> None:
    other = FakeReader(**{SESSIONS: 4400})
    desk = Desk(policy(), policy(name="twin", cluster_id="C2"), policy(name="far", prometheus="far"), far=other)
    made = desk.round()
    assert (desk.reader.calls, other.calls) == ([[SESSIONS]], [[SESSIONS]])
    assert made["far"].decision.demand == Fraction(11)


def test_a_server_that_is_not_there_is_a_gap_of_its_policies() -> None:
    desk = Desk(policy(prometheus="gone"))
    assert desk.one().decision.gaps[0][1].detail == "no Prometheus called gone"


def test_a_server_whose_client_fails_is_a_gap_of_its_policies_alone(logs: Log) -> None:
    desk = Desk(policy(), policy(name="far", cluster_id="C2", prometheus="far"), far=(far := FakeReader()))
    far.next_error = RuntimeError("cannot schedule new futures after shutdown")
    made = desk.round()
    assert made["edge"].decision.reason is Reason.ENOUGH
    assert made["far"].decision.gaps[0][1].reason is GapReason.SERVER_ERROR
    assert [entry["server"] for entry in events(logs, "readings.failed")] == ["far"]


def test_a_cluster_is_looked_at_once_for_all_its_policies() -> None:
    big = policy(name="big", worker_instance_type="ens.sn1.large")
    desk = Desk(policy(), big)
    desk.round()
    assert desk.cloud.calls == ["C1"]


def test_a_cluster_that_cannot_be_looked_at_is_a_capacity_gap() -> None:
    desk = Desk(policy(minimum=20))
    desk.cloud.gaps["C1"] = gap(GapReason.INCONSISTENT, "20 nodes told, 0 listed")
    assert desk.reason() is Reason.CAPACITY_GAP
    assert desk.buyer.calls == []


def test_a_credential_that_cannot_be_read_stops_no_evaluation(logs: Log) -> None:
    desk = Desk()
    desk.cloud.next_error = OSError("no such file")
    assert desk.one().facts.credential == ""
    assert events(logs, "credential.unavailable")


# --- capacity ---


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param("-1", "capacity.query answers -1, not a number of workers", id="negative"),
        pytest.param("10.5", "capacity.query answers 10.5, not a number of workers", id="half a worker"),
    ],
)
def test_a_capacity_that_is_no_count_is_a_gap(answer: str, says: str) -> None:
    desk = Desk(policy(capacity=CapacityQuery(query=READY), minimum=20))
    desk.reader.answers[READY] = answer
    decision = desk.one().decision
    assert (decision.reason, decision.gaps[-1][1].reason) == (Reason.CAPACITY_GAP, GapReason.NOT_A_COUNT)
    assert decision.gaps[-1][1].detail == says


FIRST = policy(capacity=CapacityQuery(query=READY), minimum=2)


def test_a_new_cluster_whose_exporters_are_none_yet_has_no_workers() -> None:  # case 14
    desk = Desk(FIRST)
    desk.reader.answers[SESSIONS] = 0
    desk.cloud.nodes["C1"] = [node("m", role="Master"), node("big", instance_type="ens.sn1.large")]
    decision = desk.one().decision
    assert (decision.reason, decision.add, decision.supply and decision.supply.serving) == (Reason.NEEDED, 2, 0)


@pytest.mark.parametrize(
    ("answer", "nodes", "made"),
    [
        pytest.param(GapReason.STALE, [], {}, id="samples that are old"),
        pytest.param(GapReason.TIMEOUT, [], {}, id="no answer"),
        pytest.param(GapReason.NO_DATA, [node("i-1")], {}, id="a ready worker in the list"),
        pytest.param(GapReason.NO_DATA, [node("i-1", ready=False)], {}, id="a worker that is not ready"),
        pytest.param(GapReason.NO_DATA, [], {"state": "accepted"}, id="workers on their way"),
        pytest.param(GapReason.NO_DATA, [], {"state": "unknown"}, id="workers that nobody knows of"),
        pytest.param(GapReason.NO_DATA, [], {"state": "fulfilled"}, id="workers that came and are not listed"),
    ],
)
def test_with_any_doubt_a_count_without_samples_is_a_gap(
    answer: GapReason, nodes: list[Node], made: dict[str, str]
) -> None:
    desk = Desk(FIRST)
    desk.reader.answers[READY] = gap(answer)
    desk.cloud.nodes["C1"] = nodes
    if made:
        reserve(desk.memory, FIRST, purchase(0, asked=1, of=FIRST, **made))  # type: ignore[arg-type]
    assert desk.reason() is Reason.CAPACITY_GAP


def test_a_worker_that_was_listed_within_the_hour_is_doubt_enough() -> None:
    desk = Desk(FIRST)
    desk.cloud.nodes["C1"] = [node("i-1")]
    desk.round()
    desk.cloud.nodes["C1"] = []
    desk.clock.advance(minutes=59)
    assert desk.reason() is Reason.CAPACITY_GAP


def test_what_a_dry_run_imagines_has_no_exporters_and_is_no_doubt() -> None:
    imagining = FIRST.model_copy(update={"dry_run": True})
    desk = Desk(imagining)
    desk.reader.answers[SESSIONS] = 800
    desk.cloud.nodes["C1"] = []
    reserve(desk.memory, imagining, purchase(0, "fulfilled", 2, of=imagining, imagined=True))
    assert desk.reason() is Reason.ENOUGH


def test_a_capacity_without_a_reading_is_that_gap() -> None:
    desk = Desk(policy(capacity=CapacityQuery(query=READY)))
    assert desk.one().decision.gaps[-1][1].reason is GapReason.NO_DATA


def sharing(name: str, region: str) -> Policy:
    return policy(name=name, ens_region_id=region, capacity=CapacityQuery(query=READY))


def test_policies_that_share_cluster_and_type_count_only_the_workers_they_bought() -> None:
    desk = Desk(sharing("beijing", "cn-beijing-telecom"), sharing("wuhan", "cn-wuhan-telecom"))
    desk.reader.answers[READY] = 2
    made = purchase(0, "fulfilled", 2, of=desk.policies[0], sent_at=at(days=-2), arrivals=arrivals(1, 2, at(days=-1)))
    reserve(desk.memory, desk.policies[0], made)
    desk.cloud.nodes["C1"] = [*nodes(6), node("bought-1-1"), node("bought-1-2")]
    seen = {name: evaluation.facts.capacity for name, evaluation in desk.round().items()}
    counted = {name: known.workers for name, known in seen.items() if isinstance(known, Capacity) and not known.alone}
    assert {name: len(workers) for name, workers in counted.items()} == {"beijing": 2, "wuhan": 0}


def reserve(ledger: MemoryLedger, of: Policy, made: Purchase) -> None:
    known = Desk(of).one()

    def propose(history: History, orders: object) -> tuple[Evaluation, Purchase]:
        return known, made

    ledger.reserve(of, NOW, "daemon-1", propose)


def test_a_policy_alone_with_its_type_counts_all_of_that_type_and_no_other() -> None:
    desk = Desk()
    desk.cloud.nodes["C1"] = [*nodes(3), node("big", instance_type="ens.sn1.large"), node("m", role="Master")]
    assert len(desk.capacity().workers) == 3


def test_a_running_scale_out_that_the_ledger_does_not_know_is_foreign() -> None:
    desk = Desk()
    desk.cloud.tasks["C1"] = [task("T-ours"), task("T-theirs"), task("T-over", state="success")]
    made = purchase(0, "accepted", 3, task_id="T-ours")
    reserve(desk.memory, desk.policies[0], made)
    capacity = desk.capacity()
    assert capacity.foreign_tasks == ("T-theirs",)
    assert capacity.tasks == ("T-ours", "T-theirs", "T-over")


@pytest.mark.parametrize(
    ("created_at", "foreign"),
    [
        pytest.param(at(minutes=-89), True, id="for as long as our own may take"),
        pytest.param(at(minutes=-90), False, id="and no longer: it was paused, or forgotten"),
        pytest.param(None, True, id="of unknown age it stays one"),
    ],
)
def test_a_foreign_scale_out_counts_while_it_may_bring_workers(created_at: datetime | None, foreign: bool) -> None:
    desk = Desk()
    desk.cloud.tasks["C1"] = [task("T-theirs", created_at=created_at)]
    assert desk.capacity().foreign_tasks == (("T-theirs",) if foreign else ())


def test_what_a_restored_ledger_does_not_know_is_looked_for() -> None:
    desk = Desk()
    desk.cloud.nodes["C1"] = [*nodes(3), node("young", ready=False, created_at=at(minutes=-9))]
    desk.cloud.tasks["C1"] = [task("T-9", "success", created_at=at(minutes=-9))]
    assert desk.capacity().strangers == ()
    desk.memory.mark(MarkName.RESTORED, at(minutes=-5), "dump of 03:00", "ana")
    desk.clock.advance(seconds=30)
    assert [stranger.name for stranger in desk.capacity().strangers] == ["task T-9", "worker young"]


# --- what comes of it ---


def test_what_needs_workers_is_bought_and_the_rest_is_recorded_together(logs: Log) -> None:
    desk = Desk(policy(), *(policy(name=f"calm-{n}", cluster_id=f"C-{n}", checks=()) for n in range(3)))
    desk.reader.answers[SESSIONS] = 5200
    desk.round()
    assert [evaluation.decision.add for evaluation in desk.buyer.calls] == [3]
    assert desk.ledger.calls.count("record") == 1
    assert set(desk.memory.latest()) == {"calm-0", "calm-1", "calm-2"}
    assert len(desk.observed.evaluations) == 4


def test_a_decision_is_told_at_info_when_it_is_news_and_at_debug_when_not(logs: Log) -> None:
    desk = Desk()
    for _ in range(2):
        desk.round()
        desk.clock.advance(seconds=30)
    assert [entry["log_level"] for entry in events(logs, "policy.evaluated")] == ["info", "debug"]
    desk.reader.answers[SESSIONS] = 5200
    for desk.buyer.news in (True, False):
        desk.round()
    assert [entry["log_level"] for entry in events(logs, "policy.evaluated")][2:] == ["info", "debug"]


def test_explaining_asks_everything_and_buys_and_records_nothing() -> None:
    desk = Desk()
    desk.reader.answers[SESSIONS] = 5200
    evaluation = desk.controller.explain(desk.policies[0], NOW)
    assert evaluation.decision.outcome is Outcome.SCALE_OUT
    assert desk.buyer.calls == []
    assert desk.memory.latest() == {}


# --- one that fails holds up no other ---


def test_a_policy_whose_purchase_fails_is_left_out_and_the_others_go_on(logs: Log) -> None:
    desk = Desk(policy(), policy(name="next", cluster_id="C2"), policy(name="calm", cluster_id="C3", checks=()))
    desk.reader.answers[SESSIONS] = 5200
    desk.buyer.next_error = LOST
    assert set(desk.round()) == {"next", "calm"}
    assert [entry["policy"] for entry in events(logs, "evaluation.failed")] == ["edge"]
    assert len(desk.observed.evaluations) == 2


def test_a_policy_that_cannot_be_decided_is_left_out_and_the_others_go_on(logs: Log) -> None:
    broken = policy(name="broken", cluster_id="C2").model_copy(update={"headroom": None})
    desk = Desk(broken, policy())
    assert set(desk.round()) == {"edge"}
    assert [entry["policy"] for entry in events(logs, "evaluation.failed")] == ["broken"]


def test_a_slow_look_at_one_cluster_holds_up_no_other() -> None:
    desk = Desk(policy(name="slow", cluster_id="C-slow"), policy(), policy(name="calm", cluster_id="C3", checks=()))
    desk.reader.answers[SESSIONS] = 5200
    answers = threading.Event()
    desk.cloud.before_look = lambda cluster_id: cluster_id == "C-slow" and answers.wait(10)
    with ThreadPoolExecutor(1) as other:
        evaluating = other.submit(desk.round)
        until(lambda: desk.buyer.calls and "calm" in desk.memory.latest())
        assert [evaluation.decision.policy for evaluation in desk.buyer.calls] == ["edge"]
        assert not evaluating.done()
        answers.set()
        assert set(evaluating.result()) == {"slow", "edge", "calm"}


def test_the_slow_looks_of_twenty_evaluations_keep_no_thread_from_another() -> None:
    desk = Desk(policy())
    answers = threading.Event()
    desk.cloud.before_look = lambda cluster_id: cluster_id.startswith("C-slow") and answers.wait(10)
    slow = [policy(name=f"slow-{n}", cluster_id=f"C-slow-{n}") for n in range(20)]
    desk.controller.know([*desk.policies, *slow], desk.readers)
    with ThreadPoolExecutor(20) as others:
        waiting = [others.submit(desk.controller.evaluate, [each], NOW) for each in slow]
        until(lambda: sum(each.cluster_id in desk.cloud.calls for each in slow) == 20)
        assert set(desk.round()) == {"edge"}
        answers.set()
        assert all(len(future.result()) == 1 for future in waiting)


def test_a_look_that_hangs_is_a_gap_of_its_own_policies_and_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoscaler.controller.LOOK_PATIENCE_SECONDS", 0.2)
    desk = Desk(policy(), policy(name="hung", cluster_id="C-hung"))
    answers = threading.Event()
    desk.cloud.before_look = lambda cluster_id: cluster_id == "C-hung" and answers.wait(10)
    for _ in range(2):
        told = desk.round()
        assert told["hung"].decision.gaps[-1][1].reason is GapReason.TIMEOUT
        assert told["edge"].decision.gaps == ()
    assert desk.cloud.calls.count("C-hung") == 1
    answers.set()


def test_a_policy_that_was_changed_while_its_cluster_was_looked_at_buys_nothing() -> None:
    desk = Desk(policy())
    changed = policy(name="edge", cooldown=timedelta(minutes=11))
    desk.cloud.before_look = lambda _: desk.controller.know([changed], desk.readers)
    desk.reader.answers[SESSIONS] = 80_000
    assert desk.round() == {}
    assert desk.buyer.calls == []


def test_a_ledger_that_cannot_be_read_ends_the_evaluation_and_nothing_is_bought() -> None:
    for method in ("histories", "overrides", "record_look"):
        desk = Desk()
        desk.reader.answers[SESSIONS] = 5200
        desk.ledger.fail(method, LOST)
        with pytest.raises(LedgerUnavailable):
            desk.round()
        assert desk.buyer.calls == []


def test_a_look_that_cannot_be_recorded_fails_after_the_others_are_done() -> None:
    desk = Desk(policy(), policy(name="next", cluster_id="C2"))
    desk.reader.answers[SESSIONS] = 5200
    desk.ledger.fail("record_look", LOST)
    with pytest.raises(LedgerUnavailable):
        desk.round()
    assert len(desk.buyer.calls) == 1


def test_a_closed_controller_decides_nothing_more_and_says_nothing_of_it(logs: Log) -> None:
    desk = Desk(policy(), policy(name="next", cluster_id="C2"))
    desk.reader.answers[SESSIONS] = 5200

    def stop(evaluation: Evaluation) -> tuple[Evaluation, bool]:
        desk.controller.close()
        raise RuntimeError("the daemon stops")

    desk.buyer.buy = stop  # type: ignore[method-assign]
    assert desk.round() == {}
    assert events(logs, "evaluation.failed") == []
    assert desk.round() == {}
