"""Limits as reservations: however many race for the last worker of one, exactly one gets it.

Replicas are threads, and once processes, each with a handle of its own on one SQLite file or one PostgreSQL. All bear
one holder's name, so that no lease keeps them apart, and the cloud accepts at once, so that no open purchase does:
what is left to stop the second purchase is the limit alone, read again where the intent is written.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import count
from multiprocessing.synchronize import Barrier as ProcessBarrier
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import SecretStr

from autoscaler.budget import room
from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import SqlLedger, open_ledger
from autoscaler.model import Accepted, Answer, Gap, GapReason, OverrideKind, Purchase, PurchaseState, Task
from autoscaler.months import add_months
from autoscaler.policy import Budget, Policy, WorkerSpec
from autoscaler.purchase import terms
from autoscaler.purchasing import Purchasing
from tests.build import NOW, at, budget, capacity, facts, policy, workers

pytestmark = pytest.mark.system

HOLDER = "replicas"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
EAGER = {"cooldown": timedelta(0), "per_action": 5}
HELD = 10  # workers that each cluster has before the race
ROUNDS = 6


class FakeSeller:
    """Sells all it is asked for, at once."""

    def __init__(self) -> None:
        self.calls: list[Purchase] = []

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        self.calls.append(purchase)
        return Accepted(f"T-{purchase.nonce}")


class BlindCloud:
    """Shows nothing."""

    def inventory(self, cluster_id: str) -> Gap:
        return Gap(GapReason.UNREACHABLE, "not asked in this test")

    def task(self, task_id: str) -> Task | None:
        return None


class Nobody:
    """Counts nothing."""

    def purchases_changed(self, purchases: object) -> None:
        pass


@dataclass
class Replica:
    """A handle on the ledger and the road to money on it."""

    ledger: SqlLedger
    seller: FakeSeller
    purchasing: Purchasing

    def buy(self, evaluation: Evaluation) -> Evaluation:
        """Buy, and wait until the cloud's answer is recorded."""
        told, _ = self.purchasing.buy(evaluation)
        while evaluation.facts.policy.cluster_id in self.purchasing.sending():
            time.sleep(0.001)
        return told

    def close(self) -> None:
        self.purchasing.close()
        self.ledger.close()


def replica(url: str, clock: Callable[[], datetime] = lambda: NOW) -> Replica:
    ledger, seller = open_ledger(url, clock=lambda: NOW), FakeSeller()
    purchasing = Purchasing(
        ledger=ledger,
        cloud=BlindCloud(),
        seller=lambda purchase: seller,
        password=lambda policy: SecretStr("Passw0rd!"),
        observer=Nobody(),
        clock=clock,
        holder=HOLDER,
        held=lambda: frozenset(),
    )
    return Replica(ledger, seller, purchasing)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that no ledger was begun in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgres")
    found: str = server.url(server.create_database())
    return found


@contextmanager
def replicas(url: str, number: int) -> Iterator[list[Replica]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(replica(url))) for _ in range(number)]


def wants_many(of: Policy, now: datetime = NOW) -> Evaluation:
    """An evaluation made before anybody bought anything: it would buy all that one action may."""
    known = facts(of, 400 * 90, capacity=capacity(workers(HELD)), now=now)
    return Evaluation(known, decide(known))


def wants_nothing(of: Policy) -> Evaluation:
    """An evaluation that would buy for an order of a person alone."""
    known = facts(of, 0, capacity=capacity(workers(HELD)))
    return Evaluation(known, decide(known))


@dataclass(frozen=True)
class Race:
    """Who buys, what for, and what is left for them together; ``name`` is new for each round."""

    buyers: Callable[[str], Sequence[Evaluation]]
    left: int
    order: bool = False  # a person orders more than is left, for all policies of the round


def same(name: str, **limits: object) -> list[Evaluation]:
    return [wants_many(policy(name=name, cluster_id=name, **EAGER, **limits))] * 4


def own_budget(name: str) -> list[Evaluation]:
    return same(name, budgets=(budget(1),))


def own_money(name: str) -> list[Evaluation]:
    return same(name, budgets=(budget(money="180.37", per=30 * DAY),), price_per_worker_month="180.37")


def maximum(name: str) -> list[Evaluation]:
    return same(name, maximum=HELD + 1)


def order_and_load(name: str) -> list[Evaluation]:
    of = policy(name=name, cluster_id=name, **EAGER, maximum=HELD + 1)
    return [wants_many(of), wants_nothing(of)] * 2


def team(name: str, clusters: int, **shared: object) -> list[Evaluation]:
    """Policies that share a budget; with one cluster, of other instance types there."""
    return [
        wants_many(
            policy(
                name=f"{name}-{n}",
                cluster_id=f"{name}-{n % clusters}",
                budgets=(Budget(shared=name, per=DAY, **shared),),  # type: ignore[arg-type]
                price_per_worker_month="180.37",
                worker_auto_renew=False,
                **EAGER,
            )
        )
        for n in range(4)
    ]


def two_clusters(name: str) -> list[Evaluation]:
    return team(name, clusters=4, workers=1)


def one_cluster(name: str) -> list[Evaluation]:
    return team(name, clusters=1, workers=1)


def shared_money(name: str) -> list[Evaluation]:
    return team(name, clusters=4, money=Fraction("1082.21"))


def plenty(name: str) -> list[Evaluation]:
    return team(name, clusters=4, workers=7)


RACES = [
    pytest.param(Race(own_budget, 1), id="the last worker of a policy's budget"),
    pytest.param(Race(own_money, 1), id="the last money of a policy's budget"),
    pytest.param(Race(maximum, 1), id="the last worker of maximum"),
    pytest.param(Race(order_and_load, 1, order=True), id="an order and the load for the last worker of maximum"),
    pytest.param(Race(two_clusters, 1), id="policies of several clusters for a shared budget's last worker"),
    pytest.param(Race(one_cluster, 1), id="policies of one cluster for a shared budget's last worker"),
    pytest.param(Race(shared_money, 5), id="policies for a shared budget in money, a cent short of six"),
    pytest.param(Race(plenty, 7), id="policies for seven of a shared budget, five at a time"),
]


@pytest.mark.parametrize("race", RACES)
def test_of_all_that_race_for_what_is_left_no_more_than_that_is_bought(url: str, race: Race) -> None:
    with replicas(url, 4) as racers:
        start = Barrier(len(racers))

        def run(racer: Replica, wish: Evaluation) -> int:
            start.wait(20)
            # Again once the first was answered for: then nothing of the cluster is open any more.
            return sum(racer.buy(wish).decision.add for _ in range(2))

        for n in range(ROUNDS):
            name = f"round{n}"
            wishes = race.buyers(name)
            if race.order:
                racers[0].ledger.add_override(OverrideKind.BUY, [f"{name}*"], 5, "ana", "derby", NOW, at(hours=1))
            racers[0].ledger.lease(HOLDER, {wish.facts.policy.cluster_id for wish in wishes}, HOUR)
            with ThreadPoolExecutor(len(racers)) as pool:
                decided = sum(pool.map(run, racers, wishes))
            sold = [call for racer in racers for call in racer.seller.calls if call.policy.startswith(name)]
            assert decided == race.left
            assert sum(call.asked for call in sold) == race.left
            rows = [row for row in racers[0].ledger.purchases(limit=None) if row.policy.startswith(name)]
            assert {(row.nonce, row.asked, row.state) for row in rows} == {
                (call.nonce, call.asked, PurchaseState.ACCEPTED) for call in sold
            }


# Processes


def run_in_process(url: str, index: int, start: ProcessBarrier, results: "multiprocessing.Queue[list[int]]") -> None:
    """What one process does: as often as there are rounds, buy of a shared budget that has one worker left."""
    with closing(replica(url)) as racer:
        bought = []
        for n in range(ROUNDS):
            wishes = two_clusters(f"round{n}")
            racer.ledger.lease(HOLDER, {wish.facts.policy.cluster_id for wish in wishes}, HOUR)
            start.wait(60)
            racer.buy(wishes[index])
            start.wait(60)
            bought.append(sum(call.asked for call in racer.seller.calls) - sum(bought))
    results.put(bought)


def test_so_it_is_between_processes(url: str) -> None:
    open_ledger(url, clock=lambda: NOW).close()
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(2), spawn.Queue()
    racers = [spawn.Process(target=run_in_process, args=(url, index, start, results)) for index in range(2)]
    for racer in racers:
        racer.start()
    bought = [results.get(timeout=50) for _ in racers]
    for racer in racers:
        racer.join(20)
    assert [sum(of_round) for of_round in zip(*bought, strict=True)] == [1] * ROUNDS


# A year


def test_over_a_year_the_rows_come_to_what_was_committed_to_the_cent(url: str) -> None:
    """Up to four workers a week, of a budget that their renewals use up more and more: told from the rows each time."""
    per, limit, price = 30 * DAY, Fraction(5000), Fraction("180.37")
    now = NOW
    of = policy(
        budgets=(budget(money=limit, per=per),),
        price_per_worker_month=str(price),
        cooldown=timedelta(0),
        per_action=4,
    )
    with closing(replica(url, clock=lambda: now)) as buyer:
        for week in range(53):
            now = NOW + week * 7 * DAY
            buyer.ledger.lease(HOLDER, [of.cluster_id], HOUR)
            decision = buyer.buy(wants_many(of, now)).decision
            rows = buyer.ledger.purchases(limit=None)
            bills = [bill for row in rows for bill in billed(row, now + per)]
            paid = sum(amount for at, amount in bills if at <= now)
            (left,) = room(of.limits.budgets, of.name, rows, terms(of), now)
            windows = {end: sum(amount for at, amount in bills if end - per < at <= end) for end in ends(bills, now)}
            assert left.committed in windows.values()
            if decision.add:
                assert max(windows.values()) <= limit, f"week {week}: {decision.sentence}"
    assert [call.asked for call in buyer.seller.calls] == [4, 4, 4, 4, 4, 4, 3], "27 renewed each month: 4869.99"
    # By 31 May those of June were paid for twelve times, those of 6 and 13 July eleven times.
    assert paid == price * (5 * 4 * 12 + (4 + 3) * 11) == Fraction("57177.29")


def ends(bills: Sequence[tuple[datetime, Fraction]], now: datetime) -> set[datetime]:
    """The ends of all windows that hold ``now`` and end where something is paid."""
    return {now, *(at for at, _ in bills if at > now)}


def billed(row: Purchase, until: datetime) -> Iterator[tuple[datetime, Fraction]]:
    """When a purchase and each of its monthly renewals are paid, and what."""
    assert row.terms.price is not None
    for month in count():
        due = add_months(row.sent_at or row.reserved_at, month)
        if due > until:
            return
        yield due, row.asked * row.terms.price
