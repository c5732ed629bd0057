"""What holds whatever the facts: nothing bought twice, no gap that buys, no change before its time."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoscaler.budget import room
from autoscaler.decision import Decision, decide, next_runs
from autoscaler.facts import Facts, Reason
from autoscaler.model import (
    Capacity,
    GapReason,
    History,
    Outcome,
    Purchase,
    PurchaseState,
    RefusalClass,
    Run,
    Worker,
)
from autoscaler.policy import Check, Headroom, Policy
from autoscaler.purchase import OPEN, Evidence, next_state, terms
from tests.build import (
    NOW,
    arrivals,
    at,
    budget,
    capacity,
    facts,
    gap,
    headroom,
    history,
    order,
    per_worker,
    policy,
    purchase,
    reading,
    schedule,
    setpoint,
    steps,
    unread,
    window,
    worker,
    workers,
)

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
QUEUE = steps((100, 1), (500, 3), (2000, "20%"))
ROOMS = st.one_of(st.integers(0, 40).map(headroom), st.integers(0, 4).map(lambda n: headroom(workers=n)))


# --- any facts ---

CHECKS = st.lists(
    st.sampled_from(
        [
            per_worker(400),
            per_worker(7, name="streams", required=True),
            setpoint("0.65", "0.1"),
            QUEUE,
            schedule(window("0 12 * * *", timedelta(minutes=9), 15)),
            schedule(window("5 12 * * *", lead=4 * MINUTE), name="five"),
        ]
    ),
    unique_by=lambda check: check.name,
    max_size=4,
)
BUDGETS = st.lists(
    st.sampled_from([budget(10), budget(6, per=20 * MINUTE), budget(money=4000, per=timedelta(days=30))]), max_size=2
)
ANY_POLICY = st.builds(
    policy,
    checks=CHECKS.map(tuple),
    minimum=st.integers(0, 12),
    maximum=st.integers(12, 40),
    per_action=st.integers(1, 9),
    budgets=BUDGETS.map(tuple),
    price_per_worker_month=st.just("180.37"),
    headroom=ROOMS,
    worker_auto_renew=st.booleans(),
    stabilization_window=st.sampled_from([timedelta(0), 2 * MINUTE, 10 * MINUTE]),
    cooldown=st.integers(0, 15).map(lambda minutes: minutes * MINUTE),
    warm_up=st.integers(0, 5).map(lambda minutes: minutes * MINUTE),
)
AGES = st.integers(0, 7200).map(lambda seconds: timedelta(seconds=seconds))
LOADS = st.integers(0, 20_000).map(Fraction) | st.fractions(0, 2, max_denominator=100)


@st.composite
def some_workers(draw: st.DrawFn) -> tuple[Worker, ...]:
    made = list(workers(draw(st.integers(0, 15)), prefix="old"))
    for n in range(draw(st.integers(0, 5))):
        seen = NOW - draw(AGES)
        ready_at = draw(st.none() | AGES.map(lambda age: NOW - age))
        is_ready = ready_at is not None and draw(st.booleans())
        last = None if ready_at is None else max(ready_at, NOW - draw(AGES))
        ends = draw(st.none() | st.integers(-3600, 9000).map(lambda seconds: NOW + seconds * SECOND))
        made.append(
            worker(
                f"new-{n}", first_seen_at=seen, ready=is_ready, ready_at=ready_at, last_ready_at=last, expires_at=ends
            )
        )
    return tuple(made)


@st.composite
def some_purchases(draw: st.DrawFn, of: Policy) -> tuple[Purchase, ...]:
    made = []
    for id in range(1, 1 + draw(st.integers(0, 4))):
        state = draw(st.sampled_from(PurchaseState))
        asked, sent_at = draw(st.integers(1, 5)), NOW - draw(AGES)
        fields: dict[str, object] = {"supply_before": draw(st.integers(0, 15))}
        if state is PurchaseState.REJECTED:
            fields["refusal"] = draw(st.sampled_from([*RefusalClass]))
        if state is PurchaseState.FAILED:
            fields["failed"] = asked
        if state is PurchaseState.FULFILLED:
            fields["arrivals"] = arrivals(id, draw(st.integers(0, asked)), sent_at)
        if draw(st.booleans()):
            fields["order_id"] = 1
        made.append(purchase(id, state, asked, sent_at, of=of, **fields))
    return tuple(made)


@st.composite
def some_runs(draw: st.DrawFn, of: Policy) -> tuple[Run, ...]:
    made: list[Run] = []
    first = NOW - draw(st.integers(0, 1200)) * SECOND
    while first < NOW - 20 * SECOND and len(made) < 5:
        last = min(NOW - 20 * SECOND, first + draw(st.integers(0, 900)) * SECOND)
        wanted = draw(st.none() | st.integers(0, 30).map(Fraction))
        made.append(Run(of.version, wanted, first, last, 1))
        first = last + draw(st.integers(20, 100)) * SECOND
    return tuple(made)


@st.composite
def some_facts(draw: st.DrawFn, policies: st.SearchStrategy[Policy] = ANY_POLICY) -> Facts:
    of = draw(policies)
    orders = [
        order(kind, draw(st.integers(1, 15)) if kind != "freeze" else None, id, ends_at=NOW + draw(AGES) + SECOND)
        for id, kind in enumerate(draw(st.lists(st.sampled_from(["freeze", "floor", "cap", "buy"]), max_size=2)), 1)
    ]
    counted = draw(st.none() | st.integers(0, 20))
    return facts(
        of,
        readings=tuple(reading(draw(LOADS), check.name) for check in of.checks),
        capacity=capacity(draw(some_workers()), counted=counted),
        history=History(draw(some_purchases(of)), draw(some_runs(of))),
        overrides=tuple(orders),
    )


def outcome(of: Decision) -> tuple[Outcome, Reason, int]:
    return of.outcome, of.reason, of.add


@given(some_facts())
def test_equal_facts_give_equal_decisions(given: Facts) -> None:
    assert decide(deepcopy(given)) == decide(given)


@given(some_facts())
def test_what_is_bought_is_within_every_limit(given: Facts) -> None:
    decision = decide(given)
    assert (decision.add > 0) == (decision.outcome is Outcome.SCALE_OUT)
    assert decision.outcome is decision.reason.outcome
    if decision.add:
        limits = given.policy.limits
        assert decision.supply is not None
        assert decision.add <= min(limits.per_action, limits.maximum - decision.supply.paid)
        rooms = room(limits.budgets, given.policy.name, given.history.purchases, terms(given.policy), given.now)
        assert all(decision.add <= left.workers for left in rooms)
        assert all(order.kind.value != "freeze" for order in given.overrides)


@given(some_facts(), st.data())
def test_more_load_never_buys_fewer(given: Facts, data: st.DataObject) -> None:
    more = tuple(
        reading(found.load.value + data.draw(LOADS), found.check)  # type: ignore[union-attr]  # these facts have no gap
        for found in given.readings
    )
    assert decide(replace(given, readings=more)).add >= decide(given).add


GAPS = st.sampled_from(GapReason).map(gap)


@given(some_facts(), st.data())
def test_a_gap_never_buys_more(given: Facts, data: st.DataObject) -> None:
    gapped = tuple(
        unread(found.check, data.draw(st.sampled_from(GapReason))) if data.draw(st.booleans()) else found
        for found in given.readings
    )
    runs = tuple(replace(run, wanted=None) if data.draw(st.booleans()) else run for run in given.history.runs)
    before = decide(given).add
    assert decide(replace(given, readings=gapped)).add <= before
    assert decide(replace(given, history=replace(given.history, runs=runs))).add <= before
    assert decide(replace(given, capacity=data.draw(GAPS))).add == 0


@given(some_facts(), st.data())
def test_nothing_changes_before_recheck_at_by_time_alone(given: Facts, data: st.DataObject) -> None:
    decision = decide(given)
    until = decision.recheck_at or at(hours=3)
    assert until > NOW
    if given.policy.stabilization_window and given.history.runs:
        # Without an evaluation in between, a hole opens in what was watched.
        until = min(until, given.history.runs[-1].last_at + 2.5 * given.policy.evaluate_every)
        assume(until > NOW)
    later = NOW + data.draw(st.integers(0, ceil((until - NOW) / SECOND) - 1)) * SECOND
    assert outcome(decide(replace(given, now=later))) == outcome(decision)


@given(some_facts(), st.data())
def test_nothing_changes_before_recheck_at_while_the_readings_want_the_same(given: Facts, data: st.DataObject) -> None:
    decision = decide(given)
    until = decision.recheck_at or at(hours=3)
    later = NOW + data.draw(st.integers(0, ceil((until - NOW) / SECOND) - 1)) * SECOND
    runs, now = given.history.runs, NOW
    while now < later:
        runs = next_runs(given.policy, runs, decision.demand, now)
        now = min(later, now + given.policy.evaluate_every)
    assert outcome(decide(replace(given, now=later, history=replace(given.history, runs=runs)))) == outcome(decision)


@given(some_facts())
def test_no_load_with_headroom_never_buys(given: Facts) -> None:
    checks = tuple(check for check in given.policy.checks if check.strategy != "schedule")
    limits = given.policy.limits.model_copy(update={"minimum": 0})
    idle = given.policy.model_copy(update={"checks": checks, "limits": limits})
    nothing = tuple(reading(0, check.name) for check in checks)
    assert decide(replace(given, policy=idle, readings=nothing, overrides=())).add == 0


@given(st.integers(0, 10**7), st.integers(1, 5000), st.integers(0, 300))
def test_the_one_ceil_is_exact(load: int, each: int, percent: int) -> None:
    given = facts(policy(checks=(per_worker(each),), headroom=headroom(percent)), load)
    wanted = -(-load * (100 + percent) // (each * 100))  # in whole numbers all the way
    assert decide(given).wanted == wanted


# --- the way of a worker ---


@dataclass(frozen=True)
class Told:
    """What the sources say of one bought worker at one time."""

    listed: str  # by the node list: absent, joining, warming, serving, lost
    attached: bool  # to its purchase
    counted: bool  # by capacity.query


TOLD = st.builds(
    Told, st.sampled_from(["absent", "joining", "warming", "serving", "lost"]), st.booleans(), st.booleans()
)
STAGES: dict[str, dict[str, object]] = {
    "joining": {"ready": False, "first_seen_at": at(minutes=-5), "ready_at": None, "last_ready_at": None},
    "warming": {"ready_at": at(minutes=-2)},
    "serving": {"ready_at": at(minutes=-3)},
    "lost": {"ready": False, "listed": False, "ready_at": at(minutes=-9), "last_ready_at": at(minutes=-1)},
}


@given(
    st.integers(0, 12),
    st.integers(0, 20),
    st.lists(TOLD, min_size=1, max_size=5),
    st.sampled_from(["list", "query", "shared"]),
)
def test_on_its_way_a_worker_is_never_bought_again(there: int, lacking: int, bought: list[Told], counts: str) -> None:
    asked = len(bought)
    brought = tuple(arrivals(1, asked)[n] for n, told in enumerate(bought) if told.attached)
    done = len(brought) == asked
    of = purchase(1, "fulfilled" if done else "accepted", asked, at(minutes=-20), arrivals=brought)
    listed = [
        worker(f"bought-1-{n}", purchase_id=1, **STAGES[told.listed])
        for n, told in enumerate(bought, 1)
        if told.listed != "absent"
    ]
    seen: Capacity
    if counts == "list":
        seen = capacity([*workers(there), *listed])
    elif counts == "query":
        seen = capacity([*workers(there), *listed], counted=there + sum(told.counted for told in bought))
    else:  # the list shows what was bought only; by the end of warm_up the query knows of it
        known = sum(told.counted or told.listed in ("serving", "lost") for told in bought)
        seen = capacity(listed, counted=there + known, alone=False)
    wanted = there + asked + lacking
    decision = decide(facts(policy(), wanted * 400, capacity=seen, history=history(of)))
    assert decision.add <= lacking


# --- a closed loop ---


@dataclass
class World:
    """A cluster in which every purchase arrives, worker by worker; looked at and settled like the real one."""

    policy: Policy
    delays: Iterator[int]  # minutes until each worker is ready
    workers: list[Worker]
    purchases: list[Purchase] = field(default_factory=list)
    runs: tuple[Run, ...] = ()
    joins: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)  # listed at, ready at

    def turn(self, load: int, now: datetime) -> Decision:
        seen = [self._seen(one, now) for one in self.workers if self.joins.get(one.instance_id, (now, now))[0] <= now]
        for n, one in enumerate(self.purchases):
            claimed = {a.instance_id for other in self.purchases if other is not one for a in other.arrivals}
            self.purchases[n] = next_state(one, Evidence(now, tuple(seen), None, (), frozenset(claimed)), now)
        serving = sum(one.ready_at is not None and one.ready_at + self.policy.warm_up <= now for one in seen)
        values = {"sessions": load, "queue": max(0, load - 400 * serving)}
        mean = Fraction(load, 400 * serving) if serving else None
        readings = tuple(
            reading(mean, check.name)
            if check.name == "utilization" and mean is not None
            else reading(values[check.name], check.name)
            if check.name in values
            else unread(check.name, GapReason.NO_DATA)
            for check in self.policy.checks
        )
        decision = decide(
            facts(
                self.policy,
                now=now,
                readings=readings,
                capacity=capacity(seen),
                history=History(tuple(self.purchases), self.runs),
            )
        )
        self.runs = next_runs(self.policy, self.runs, decision.demand, now)
        if decision.add:
            self._buy(decision, now)
        return decision

    def _seen(self, one: Worker, now: datetime) -> Worker:
        listed_at, ready_at = self.joins.get(one.instance_id, (one.first_seen_at, one.ready_at or now))
        if now < ready_at:
            return replace(one, ready=False, first_seen_at=listed_at, ready_at=None, last_ready_at=None)
        return replace(one, first_seen_at=listed_at, ready_at=ready_at, last_ready_at=now)

    def _buy(self, decision: Decision, now: datetime) -> None:
        assert decision.supply is not None
        id = len(self.purchases) + 1
        before = decision.supply.total
        self.purchases.append(purchase(id, "accepted", decision.add, now, of=self.policy, supply_before=before))
        for n in range(1, decision.add + 1):
            name, delay = f"bought-{id}-{n}", next(self.delays)
            self.joins[name] = (now + delay * MINUTE / 2, now + delay * MINUTE)
            self.workers.append(worker(name, created_at=now, purchase_id=id))


def endless(pattern: list[int]) -> Iterator[int]:
    while True:
        yield from pattern


@settings(max_examples=40)
@given(
    st.sampled_from([per_worker(400), setpoint("0.65"), setpoint("0.65", "0.1"), QUEUE]),
    st.integers(0, 12_000),
    st.integers(0, 20),
    ROOMS,
    st.sampled_from([timedelta(0), 2 * MINUTE]),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
)
def test_at_constant_load_with_every_purchase_arriving_purchases_stop(
    check: Check, load: int, there: int, extra: Headroom, stable: timedelta, delays: list[int]
) -> None:
    of = policy(
        checks=(check,),
        headroom=extra,
        stabilization_window=stable,
        minimum=1,
        maximum=1000,
        per_action=9,
        evaluate_every=2 * MINUTE,
    )
    world = World(of, endless(delays), list(workers(there)))
    decisions = [world.turn(load, NOW + n * of.evaluate_every) for n in range(360)]
    assert not any(decision.add for decision in decisions[-60:])
    assert all(one.state not in OPEN for one in world.purchases)
    each = 260 if check.strategy == "setpoint" else 400
    most = max(ceil(Fraction(load, each) * (1 + of.headroom.ratio)) + of.headroom.workers, 1, there)
    if check == QUEUE:
        most += 3  # a step adds until the queue is below it
    assert len(world.workers) <= most
