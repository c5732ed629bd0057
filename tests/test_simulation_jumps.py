"""Jumping or tick by tick, a simulation comes to the same: every decision, every purchase, every worker."""

from array import array
from datetime import timedelta
from math import nan

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.model import GapReason, Override, RefusalClass
from autoscaler.policy import Policy
from autoscaler.simulation import (
    FOREIGN,
    CapacityFault,
    ClusterFault,
    Fate,
    Fault,
    JoinDelay,
    Load,
    Market,
    PurchaseFault,
    ReadingFault,
    WorkerFault,
    evaluations,
    simulate,
)
from tests.build import NOW, budget, headroom, order, per_worker, policy, schedule, setpoint, steps, window

MINUTE = timedelta(minutes=1)
TICKS = 100
STEPS = st.sampled_from([timedelta(seconds=30), MINUTE, 7 * MINUTE, timedelta(hours=5)])

CHECKS = st.lists(
    st.sampled_from(
        [
            per_worker(400),
            per_worker(7, name="streams", required=True),
            setpoint("0.65", "0.1"),
            setpoint("0.7", name="cpu", over="count(cpu)"),
            steps((100, 1), (500, 3), (2000, "20%")),
            schedule(window("*/20 * * * *", timedelta(minutes=9), 9)),
            schedule(window("0 18 * * *", timedelta(hours=6), 7, lead=40 * MINUTE), name="night"),
        ]
    ),
    unique_by=lambda check: check.name,
    max_size=4,
)
BUDGETS = st.lists(
    st.sampled_from([budget(4, per=40 * MINUTE), budget(9), budget(money=4000, per=timedelta(days=30))]), max_size=2
)
MINUTES = st.integers(0, 15).map(lambda minutes: minutes * MINUTE)
POLICIES = st.builds(
    policy,
    checks=CHECKS.map(tuple),
    minimum=st.integers(0, 4),
    maximum=st.integers(4, 25),
    per_action=st.integers(1, 9),
    budgets=BUDGETS.map(tuple),
    price_per_worker_month=st.just("180.37"),
    headroom=st.integers(0, 40).map(headroom) | st.integers(0, 3).map(lambda n: headroom(workers=n)),
    worker_auto_renew=st.booleans(),
    stabilization_window=st.sampled_from([timedelta(0), 90 * timedelta(seconds=1), 3 * MINUTE, 20 * MINUTE]),
    cooldown=MINUTES,
    warm_up=MINUTES,
    assumed_join=MINUTES,
    settle_unknown=st.sampled_from(["person", "after_quiet_period"]),
    timeout_mins=st.sampled_from([1, 60]),
    provision_timeout=st.sampled_from([75 * MINUTE, 2 * timedelta(hours=1)]),
    capacity=st.sampled_from([{}, {"query": "count(up)"}]),
)

# Values around the thresholds of the checks above, each held for a while, with gaps between.
VALUES = {
    "sessions": [0, 399, 400, 1999.5, 2000, 2000.4, 4001, 6000],
    "streams": [0, 7, 34.9, 35, 36, 70.01],
    "utilization": [0.1, 1.3, 3.25, 3.575, 3.58, 6.5, 9.1],
    "cpu": [0.7, 2.1, 3.5, 3.51, 7.7],
    "queue": [0, 99, 100, 501, 2500],
}


@st.composite
def series(draw: st.DrawFn, name: str) -> "array[float]":
    made = array("d")
    while len(made) < TICKS:
        value = draw(st.sampled_from([*VALUES[name], nan]))
        other = draw(st.sampled_from([*VALUES[name], nan, value, value]))
        made.extend([value, other] * draw(st.integers(1, 25)))
    return made[:TICKS]


@st.composite
def loads(draw: st.DrawFn, of: Policy) -> Load:
    step = draw(STEPS)
    names = [check.name for check in of.checks if check.strategy != "schedule"]
    recorded = {name: draw(series(name)) for name in names if draw(st.integers(0, 9))}
    return Load(NOW, step, TICKS, recorded)


@st.composite
def markets(draw: st.DrawFn, load: Load) -> Market:
    def at() -> timedelta:
        return draw(st.integers(0, TICKS * 4)) * load.step / 4

    def faults() -> Fault:
        start = NOW + at()
        until = start + draw(st.integers(1, 60)) * load.step / 3
        match draw(st.integers(0, 5)):
            case 0 | 1:
                return PurchaseFault(
                    start, draw(st.sampled_from(Fate)), draw(st.integers(0, 3)), draw(st.sampled_from(RefusalClass))
                )
            case 2:
                reason = draw(st.sampled_from([GapReason.STALE, GapReason.CLOCK]))
                return ReadingFault(start, until, draw(st.sampled_from([None, *VALUES])), reason)
            case 3:
                return CapacityFault(start, until)
            case 4:
                return WorkerFault(start, draw(st.integers(1, 6)), draw(st.none() | st.just(until)))
            case _:
                return ClusterFault(start, until, draw(st.sampled_from(["updating", FOREIGN])))

    return Market(
        join=draw(st.none() | st.just(JoinDelay(MINUTE, 5 * MINUTE, timedelta(hours=1)))),
        failing=draw(st.sampled_from([0.0, 0.3])),
        seed=draw(st.integers(0, 5)),
        node_quota=draw(st.none() | st.integers(5, 30)),
        standing_ends=tuple(NOW + at() for _ in range(draw(st.integers(0, 3)))),
        faults=tuple(faults() for _ in range(draw(st.integers(0, 4)))),
    )


@st.composite
def orders(draw: st.DrawFn, load: Load) -> tuple[Override, ...]:
    made = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["freeze", "floor", "cap", "buy"]))
        starts_at = NOW + draw(st.integers(-10, TICKS * 2)) * load.step / 2
        lasts = draw(st.integers(1, 120)) * load.step / 2
        workers = None if kind == "freeze" else draw(st.integers(1, 12))
        made.append(order(kind, workers, starts_at=starts_at, ends_at=starts_at + lasts))
    return tuple(made)


@settings(max_examples=25)
@given(st.data())
def test_jumping_changes_no_decision_and_no_purchase(data: st.DataObject) -> None:
    of = data.draw(POLICIES)
    load = data.draw(loads(of))
    market = data.draw(markets(load))
    given = {"ready": data.draw(st.integers(0, 12)), "overrides": data.draw(orders(load))}
    jumped = simulate(of, load, market, **given)
    for evaluation in evaluations(of, load, market, **given):
        at = evaluation.facts.now
        span = jumped.spans.at(load.tick(at))
        assert (span.reason, span.add) == (evaluation.decision.reason, evaluation.decision.add), at
        assert jumped.evaluation_at(at).decision == evaluation.decision
    plain = simulate(of, load, market, jumping=False, **given)
    assert jumped.purchases == plain.purchases
    assert jumped.spans == plain.spans
    assert (jumped.tenures, jumped.levels) == (plain.tenures, plain.levels)
