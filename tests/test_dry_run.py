"""A dry run rehearses a policy: what it imagines arrives, is budgeted and lapses, and no live policy sees it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from autoscaler.cloud import ImaginedCloud
from autoscaler.controller import Controller
from autoscaler.decision import Decision
from autoscaler.ledger import MemoryLedger
from autoscaler.model import Accepted, Purchase, PurchaseState
from autoscaler.policy import Budget, Policy, WorkerSpec
from autoscaler.purchasing import Purchasing
from tests.build import CLUSTER_ID, at, budget, policy, setpoint
from tests.fakes import Clock, FakeCloud, FakeReader, Observed, node, nodes, until

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SESSIONS, MEAN = "sum(live_sessions)", "avg(edge_utilization)"


class Stage:
    """Ten real workers, a cloud that sells nothing by itself, and a daemon's parts moved on minute by minute."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger(clock=self.clock)
        held = self.ledger.lease("daemon", [CLUSTER_ID], 400 * DAY)
        self.cloud = FakeCloud(self.clock)
        self.cloud.nodes[CLUSTER_ID] = nodes(10)
        self.reader = FakeReader()
        self.sold: list[Purchase] = []
        self.purchasing = Purchasing(
            ledger=self.ledger,
            cloud=self.cloud,
            seller=lambda purchase: ImaginedCloud() if purchase.imagined else self,
            password=lambda policy: SecretStr("Sandbox-0nly!"),
            observer=Observed(),
            clock=self.clock,
            holder="daemon",
            held=lambda: held,
        )
        self.controller = Controller(
            readers={}, cloud=self.cloud, ledger=self.ledger, purchasing=self.purchasing, observer=Observed()
        )

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Accepted:
        self.sold.append(purchase)
        return Accepted("T-1")

    def evaluate(self, of: Policy) -> Decision:
        """Settle and evaluate once, as it stands now."""
        self.purchasing.settle_all(self.clock())
        self.controller.know([of], {"default": self.reader})
        (evaluation,) = self.controller.evaluate([of], self.clock())
        until(lambda: not self.purchasing.sending())
        return evaluation.decision

    def play(self, of: Policy, minutes: int, every: int = 1) -> list[str]:
        """Evaluate for so long; ``"3 needed 5"`` where the reason is another than before, or workers are bought."""
        told: list[str] = []
        last = None
        for minute in range(0, minutes, every):
            decision = self.evaluate(of)
            if decision.add or decision.reason != last:
                told.append(f"{minute} {decision.reason}" + (f" {decision.add}" if decision.add else ""))
            last = decision.reason
            self.clock.advance(minutes=every)
        return told

    @property
    def imagined(self) -> list[int]:
        """What was asked for in imagination, oldest first."""
        return [purchase.asked for purchase in reversed(self.ledger.purchases(limit=None)) if purchase.imagined]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.purchasing.close()
    made.controller.close()


def dry(**fields: object) -> Policy:
    return policy(**({"dry_run": True, "evaluate_every": MINUTE} | fields))


def test_what_is_lacking_is_imagined_once_and_met_for_a_week(stage: Stage) -> None:  # case 39
    stage.reader.answers[SESSIONS] = 6000
    assert stage.play(dry(), 60 * 24 * 7, every=20) == ["0 needed 5", "20 enough"]
    assert (stage.imagined, stage.sold) == ([5], [])


def test_imagined_workers_are_in_flight_until_they_have_joined_and_warmed_up(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 6000
    of, numbers = dry(assumed_join=10 * MINUTE, warm_up=3 * MINUTE), []
    for _ in range(15):
        supply = stage.evaluate(of).supply
        assert supply is not None
        numbers.append((supply.serving, supply.expected, supply.warming))
        stage.clock.advance(minutes=1)
    assert numbers == [(10, 0, 0), *[(10, 5, 0)] * 9, *[(10, 0, 5)] * 3, *[(15, 0, 0)] * 2]


def test_an_imagined_worker_carries_no_load(stage: Stage) -> None:
    # The mean is of the ten real workers for ever: its load is 9.0, which 14 workers carry at 0.65.
    stage.reader.answers[MEAN] = "0.9"
    assert stage.play(dry(checks=(setpoint(),)), 120) == ["0 needed 4", "1 enough"]


def test_an_imagined_purchase_cools_down(stage: Stage) -> None:
    of = dry(cooldown=15 * MINUTE)
    stage.reader.answers[SESSIONS] = 6000
    assert stage.play(of, 2) == ["0 needed 5", "1 enough"]
    stage.reader.answers[SESSIONS] = 8000
    assert stage.play(of, 20) == ["0 cooldown", "13 needed 5", "14 enough"]


def test_an_imagined_purchase_counts_in_the_budgets_of_its_policy(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 8000
    of = dry(budgets=(budget(6, per=timedelta(hours=2)),), cooldown=timedelta(0))
    assert stage.play(of, 130) == ["0 needed 6", "1 budget", "120 needed 4", "121 enough"]


def test_imagined_workers_are_replaced_before_they_lapse(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 6000
    of = dry(worker_auto_renew=False, evaluate_every=20 * MINUTE)
    told = stage.play(of, 60 * 24 * 31, every=20)
    assert told[:2] == ["0 needed 5", "20 enough"]
    assert told[2:] == [f"{60 * 24 * 30 - 60} needed 5", f"{60 * 24 * 30 - 40} enough"]  # June has thirty days


def test_going_live_forgets_what_was_imagined(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 6000
    fuse = {"budgets": (budget(5),), "cooldown": timedelta(hours=9)}
    assert stage.play(dry(**fuse), 30) == ["0 needed 5", "1 enough"]
    decision = stage.evaluate(policy(**fuse))
    assert (decision.reason, decision.add, decision.dry_run) == ("needed", 5, False)
    assert decision.supply is not None
    assert (decision.supply.total, decision.supply.imagined) == (10, 0)
    assert [purchase.asked for purchase in stage.sold] == [5]


def test_going_live_keeps_what_is_real(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 6000
    assert stage.play(policy(), 2) == ["0 needed 5", "1 enough"]
    stage.reader.answers[SESSIONS] = 6400
    rehearsed = stage.evaluate(dry())
    assert (rehearsed.reason, rehearsed.supply and rehearsed.supply.total) == ("cooldown", 15)
    stage.clock.advance(minutes=10)
    stage.cloud.nodes[CLUSTER_ID] += [node(f"new-{n}", created_at=stage.clock()) for n in range(5)]
    assert stage.evaluate(dry()).add == 1
    live = stage.evaluate(policy())
    assert (live.add, live.supply and live.supply.total) == (1, 15)


def test_a_live_policy_beside_a_dry_run_sees_nothing_of_it(stage: Stage) -> None:
    shared = Budget(workers=5, per=DAY, shared="team")
    stage.reader.answers[SESSIONS] = 6000
    rehearsal = dry(name="rehearsal", budgets=(shared,), assumed_join=timedelta(hours=5))
    assert stage.evaluate(rehearsal).add == 5
    decision = stage.evaluate(policy(name="live", budgets=(shared,)))
    assert (decision.reason, decision.add) == ("needed", 5)
    assert [purchase.state for purchase in stage.ledger.purchases() if purchase.imagined] == [PurchaseState.ACCEPTED]


def test_a_dry_run_sees_what_a_live_policy_took_from_their_budget(stage: Stage) -> None:
    shared = Budget(workers=5, per=DAY, shared="team")
    stage.reader.answers[SESSIONS] = 6000
    assert stage.evaluate(policy(name="live", budgets=(shared,))).add == 5
    stage.clock.advance(minutes=30)
    rehearsal = dry(name="rehearsal", budgets=(shared,))
    assert stage.evaluate(rehearsal).reason == "budget"


def test_the_log_says_that_it_is_a_dry_run(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 6000
    with capture_logs() as logs:
        stage.evaluate(dry())
        stage.evaluate(policy(name="live"))
    told = [(entry["policy"], entry["dry_run"]) for entry in logs if entry["event"] == "policy.evaluated"]
    assert told == [("edge", True), ("live", False)]


def test_the_minimum_and_the_maximum_count_what_is_imagined(stage: Stage) -> None:
    stage.reader.answers[SESSIONS] = 40_000
    assert stage.play(dry(maximum=13), 40) == ["0 needed 3", "1 maximum"]
    assert stage.imagined == [3]
    assert stage.clock() == at(minutes=40)
