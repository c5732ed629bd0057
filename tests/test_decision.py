"""What load, gaps, workers and targets come to. "case N" is a situation that a first reading gets wrong."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest
from pydantic import TypeAdapter

from autoscaler.decision import Decision, Evaluation, decide, differences, next_runs, withheld
from autoscaler.facts import Facts, Reason
from autoscaler.model import Arrival, Capacity, CheckReading, GapReason, Outcome
from autoscaler.rules import RULES
from tests.build import (
    NOW,
    arrivals,
    arrived_workers,
    at,
    budget,
    capacity,
    facts,
    gap,
    headroom,
    history,
    joining,
    lost,
    order,
    per_worker,
    policy,
    purchase,
    reading,
    run,
    schedule,
    setpoint,
    steps,
    unread,
    warming,
    window,
    worker,
    workers,
)
from tests.deciding import Row, at_load, check, rows

TEN_PERCENT = headroom(10)
QUEUE = steps((100, 1), (500, 3), (2000, "20%"))


def queue(depth: int, capacity: Capacity, *purchases: object, **more: object) -> Facts:
    made = policy(checks=(QUEUE,), **more)
    return facts(made, readings=(reading(depth, "queue"),), capacity=capacity, history=history(*purchases))  # type: ignore[arg-type]


def mean(value: str, of: Capacity, over: int | None = None, tolerance: str = "0", **more: object) -> Facts:
    made = policy(checks=(setpoint("0.65", tolerance),), **more)
    return facts(made, readings=(reading(value, "utilization", over),), capacity=of)


DEMAND: dict[str, Row] = {
    "load beyond the workers buys the difference": (
        at_load(5873, 12),
        "scale_out needed 3",
        'scale out by 3 at 12: "sessions" wants 15 (5873 at 400 each)',
    ),
    "what is in flight is not bought again": (
        at_load(5873, 0, capacity=capacity(workers(12) + joining(3))),
        "hold enough 0",
        'hold at 12: "sessions" wants 15 (5873 at 400 each), 3 already in flight',
    ),
    "a load that the workers carry wants no more": (
        at_load(4800, 12),
        "hold enough 0",
        'hold at 12: "sessions" wants 12 (4800 at 400 each), which is met',
    ),
    "a load one above what they carry wants one more": (at_load(4801, 12), "scale_out needed 1"),
    "no load with headroom buys nothing": (at_load(0, 0, of=policy(headroom=TEN_PERCENT)), "hold enough 0"),
    "no load with headroom in workers buys nothing": (
        at_load(0, 0, of=policy(headroom=headroom(workers=2))),
        "hold enough 0",
    ),
    "a negative load is no load": (at_load(-500, 0, of=policy(headroom=TEN_PERCENT)), "hold enough 0"),
    "no step reached wants nothing, whatever the headroom": (  # case 1
        queue(0, capacity(workers(10)), headroom=TEN_PERCENT),
        "hold enough 0",
        'hold at 10: "queue" wants nothing (0 reaches no step)',
    ),
    "a mean within tolerance wants nothing, whatever the headroom": (  # case 2
        mean("0.715", capacity(workers(10)), tolerance="0.1", headroom=TEN_PERCENT),
        "hold enough 0",
        'hold at 10: "utilization" wants nothing (0.715 is within target 0.65)',
    ),
    "a mean just above tolerance wants what brings it back to its target": (
        mean("0.7151", capacity(workers(10)), tolerance="0.1"),
        "scale_out needed 2",
    ),
    "5601 at 400 each + 10% is 16, not 17": (  # case 3
        at_load(5601, 0, of=policy(headroom=TEN_PERCENT)),
        "scale_out needed 16",
        'scale out by 16 at 0: "sessions" wants 16 (5601 at 400 each + 10%)',
    ),
    "50 + 10% is 55, not 56": (  # case 4
        at_load(50, 0, of=policy(checks=(per_worker(1),), headroom=TEN_PERCENT, per_action=100)),
        "scale_out needed 55",
    ),
    "100 + 10% is 110, not 111": (  # case 4
        at_load(100, 0, of=policy(checks=(per_worker(1),), headroom=TEN_PERCENT, per_action=200, maximum=200)),
        "scale_out needed 110",
    ),
    "1.8 / 0.6 × 3 is 9, not 10": (  # case 4
        facts(
            policy(checks=(setpoint("0.6"),)),
            readings=(reading("1.8", "utilization", over=3),),
            capacity=capacity(workers(3)),
        ),
        "scale_out needed 6",
    ),
    "headroom in workers is added to the load": (
        at_load(5873, 12, of=policy(headroom=headroom(workers=2))),
        "scale_out needed 5",
        'scale out by 5 at 12: "sessions" wants 17 (5873 at 400 each + 2)',
    ),
    "a mean over ten exporters is the load of ten workers, though thirteen are ready": (  # case 6
        mean("0.90", capacity(workers(10) + warming(3)), over=10),
        "scale_out needed 1",
        'scale out by 1 at 10: "utilization" wants 14 (0.9 over 10 workers, target 0.65), 3 already in flight',
    ),
    "a mean without a count covers the serving workers": (
        mean("0.90", capacity(workers(10) + warming(3))),
        "scale_out needed 1",
    ),
    "the check that wants most decides": (
        facts(
            policy(checks=(per_worker(400), QUEUE)),
            readings=(reading(4801), reading(600, "queue")),
            capacity=capacity(workers(11)),
        ),
        "scale_out needed 3",
        'scale out by 3 at 11: "queue" wants 14 (600 reaches step 500: 11 + 3)',
    ),
    "a step in percent adds that part of the supply": (
        queue(2000, capacity(workers(20))),
        "scale_out needed 4",
        'scale out by 4 at 20: "queue" wants 24 (2000 reaches step 2000: 20 + 20%)',
    ),
    "a percentage of few workers is never less than a lower step": (
        queue(2000, capacity(workers(5))),
        "scale_out needed 3",
        'scale out by 3 at 5: "queue" wants 8 (2000 reaches step 500: 5 + 3)',
    ),
    "without a check nothing is asked for": (
        facts(policy(checks=()), capacity=capacity(workers(1))),
        "hold enough 0",
        "hold at 1: no check asks for workers",
    ),
}

FIRST_STEP = purchase(1, asked=1, supply_before=10)
LANDED = purchase(1, "fulfilled", asked=3, supply_before=10)

STEPS: dict[str, Row] = {
    "a step does not add again while its workers are expected": (  # case 8
        queue(500, capacity(workers(10)), purchase(1, asked=3, supply_before=10), cooldown=timedelta(0)),
        "hold enough 0",
    ),
    "nor while two of three have landed": (  # case 8
        queue(
            500,
            capacity([*workers(10), worker("bought-1-1"), worker("bought-1-2")]),
            purchase(1, asked=3, supply_before=10, arrivals=arrivals(1, 2)),
        ),
        "hold enough 0",
    ),
    "nor while the last of them warms up": (  # case 8
        queue(
            500,
            capacity([*workers(12), worker("bought-1-3", ready_at=at(minutes=-2))]),
            replace(LANDED, arrivals=(Arrival("bought-1-3", NOW),)),
        ),
        "hold enough 0",
    ),
    "once all of them serve, the step counts afresh": (  # case 8
        queue(500, capacity(workers(10) + arrived_workers(LANDED)), LANDED),
        "scale_out needed 3",
        'scale out by 3 at 13: "queue" wants 16 (500 reaches step 500: 13 + 3)',
    ),
    "a higher step adds the difference to a lower one in flight": (  # case 9
        queue(500, capacity(workers(10)), FIRST_STEP),
        "scale_out needed 2",
        'scale out by 2 at 10: "queue" wants 13 (500 reaches step 500: 10 + 3), 1 already in flight',
    ),
    "a bought worker that no look shows yet keeps its step in flight": (
        queue(500, capacity(workers(10)), LANDED),
        "hold enough 0",
    ),
    "a bought worker that is gone does not": (
        queue(500, capacity(workers(13)), replace(LANDED, arrivals=(Arrival("x", NOW, gone_at=NOW),))),
        "scale_out needed 3",
    ),
}

TWO = policy(checks=(per_worker(400), per_worker(100, name="streams")))
REQUIRED = policy(checks=(per_worker(400, required=True), per_worker(100, name="streams")))

GAPS: dict[str, Row] = {
    "a gap asks for nothing": (
        facts(readings=(unread(),), capacity=capacity(workers(12))),
        "hold gap 0",
        'hold at 12: "sessions" has no reading (timeout: no answer within 5s)',
    ),
    "a check that was not read is a gap": (
        facts(capacity=capacity(workers(12))),
        "hold gap 0",
        'hold at 12: "sessions" has no reading (no_data: it was not read)',
    ),
    "a check with a gap does not hold another, and is named": (  # case 13
        facts(TWO, readings=(unread(), reading(1200, "streams"))),
        "scale_out needed 12",
        'scale out by 12 at 0: "streams" wants 12 (1200 at 100 each); '
        '"sessions" has no reading (timeout: no answer within 5s)',
    ),
    "a gap is named also where the other check wants no more": (
        facts(TWO, readings=(unread(), reading(1200, "streams")), capacity=capacity(workers(12))),
        "hold enough 0",
        'hold at 12: "streams" wants 12 (1200 at 100 each), which is met; '
        '"sessions" has no reading (timeout: no answer within 5s)',
    ),
    "a required check's gap holds what the others want": (
        facts(REQUIRED, readings=(unread(), reading(1200, "streams"))),
        "hold gap 0",
        'hold at 0: required "sessions" has no reading (timeout: no answer within 5s)',
    ),
    "one surviving site at 95% is not the fleet": (  # case 7
        mean("0.95", capacity(workers(20)), over=1),
        "hold gap 0",
        'hold at 20: "utilization" has no reading (partial_coverage: the mean covers 1 of 20 serving workers)',
    ),
    "a mean over 80% of the serving workers counts": (
        mean("0.85", capacity(workers(10)), over=8),
        "scale_out needed 1",
    ),
    "a count of covered workers that is no reading is a gap": (
        facts(
            policy(checks=(setpoint(over="count(edge_utilization)"),)),
            readings=(CheckReading("utilization", reading(1).load, gap(GapReason.NO_DATA, "no series")),),
            capacity=capacity(workers(5)),
        ),
        "hold gap 0",
        'hold at 5: "utilization" has no reading (no_data: no series)',
    ),
    "a node list that contradicts itself buys nothing, the minimum neither": (  # case 10
        facts(policy(minimum=2), 5873, capacity=gap(GapReason.INCONSISTENT, "0 nodes of a total of 20")),
        "hold capacity_gap 0",
        "hold: the workers cannot be counted (inconsistent: 0 nodes of a total of 20); "
        '"sessions" wants 15 (5873 at 400 each)',
    ),
    "a capacity query without an answer buys nothing, a person's order neither": (
        facts(load=5873, capacity=gap(), overrides=(order("buy", 5),)),
        "hold capacity_gap 0",
    ),
    "a check that needs the workers is no second gap when they cannot be counted": (
        facts(policy(checks=(QUEUE,)), readings=(reading(500, "queue"),), capacity=gap()),
        "hold capacity_gap 0",
        "hold: the workers cannot be counted (timeout: no answer within 5s)",
    ),
    "a Prometheus whose clock is off holds what load wants": (
        at_load(0, 12, readings=(unread(reason=GapReason.CLOCK),)),
        "hold clock 0",
        'hold at 12: "sessions" has no reading (clock: no answer within 5s)',
    ),
    "and what its other checks, the minimum and a person want": (
        facts(
            policy(checks=(per_worker(), per_worker(name="streams")), minimum=3),
            readings=(unread(reason=GapReason.CLOCK), reading(9000, "streams")),
            overrides=(order("buy", 5),),
        ),
        "hold clock 0",
        'hold at 0: "sessions" has no reading (clock: no answer within 5s); '
        'order 1 of ana lacks 5 of 5 ("derby tonight")',
    ),
    "the count of what a mean covers may tell of the clock too": (
        mean("0.95", capacity(workers(10)), over=gap(GapReason.CLOCK, "its clock is 1h ahead of ours")),
        "hold clock 0",
        'hold at 10: "utilization" has no reading (clock: its clock is 1h ahead of ours)',
    ),
    "a clock that jumped two hours holds, with workers in flight": (  # case 26
        at_load(5873, 12, purchase(1), capacity=gap(GapReason.CLOCK, "7200s ahead of Prometheus")),
        "hold clock 0",
        "hold: the workers cannot be counted (clock: 7200s ahead of Prometheus); "
        '"sessions" wants 15 (5873 at 400 each)',
    ),
}

EVENING = schedule(window("0 18 * * *", timedelta(hours=6), 12, timezone="Asia/Shanghai", lead=timedelta(minutes=40)))
SIX_PM = at(hours=-2)  # in Shanghai
FLOOR = order("floor", 8)

TARGETS: dict[str, Row] = {
    "a new cluster without a mean still reaches its minimum": (  # case 14
        facts(policy(checks=(setpoint(),), minimum=2), readings=(unread("utilization", GapReason.NO_DATA),)),
        "scale_out needed 2",
        'scale out by 2 at 0: minimum wants 2; "utilization" has no reading (no_data: no answer within 5s)',
    ),
    "with Prometheus down the minimum is bought": (  # case 12
        facts(policy(minimum=2), readings=(unread(),)),
        "scale_out needed 2",
    ),
    "with Prometheus down and a required check the minimum is bought": (  # case 12
        facts(policy(checks=(per_worker(required=True),), minimum=2), readings=(unread(),)),
        "scale_out needed 2",
    ),
    "with Prometheus down a schedule window opens": (  # case 12
        facts(policy(checks=(per_worker(), EVENING)), readings=(unread(),), now=SIX_PM),
        "scale_out needed 12",
        'scale out by 12 at 0: "evening" wants 12 until 16:00:00Z; '
        '"sessions" has no reading (timeout: no answer within 5s)',
    ),
    "with Prometheus down a person's order is bought": (  # case 12
        facts(readings=(unread(),), overrides=(order("buy", 5),)),
        "scale_out ordered 5",
        'scale out by 5 at 0: order 1 of ana lacks 5 of 5 ("derby tonight"); '
        '"sessions" has no reading (timeout: no answer within 5s)',
    ),
    "what is missing of a target is named beside the gap when there is enough": (
        facts(policy(minimum=2), readings=(unread(),), capacity=capacity(workers(2))),
        "hold gap 0",
        'hold at 2: "sessions" has no reading (timeout: no answer within 5s); minimum wants 2',
    ),
    "a window begins its lead before it opens": (  # case 31
        facts(policy(checks=(EVENING,)), now=SIX_PM - timedelta(minutes=40)),
        "scale_out needed 12",
    ),
    "a second before the lead nothing is wanted": (  # case 31
        facts(policy(checks=(EVENING,)), now=SIX_PM - timedelta(minutes=40, seconds=1)),
        "hold enough 0",
        "hold at 0: no check asks for workers",
    ),
    "a window ends at the end of its length": (
        facts(policy(checks=(EVENING,)), now=SIX_PM + timedelta(hours=6)),
        "hold enough 0",
    ),
    "a microsecond before its end it still holds": (
        facts(policy(checks=(EVENING,)), now=SIX_PM + timedelta(hours=6) - timedelta(microseconds=1)),
        "scale_out needed 12",
    ),
    "a window is filled by purchases of per_action": (  # case 31
        facts(policy(checks=(EVENING,), per_action=5), now=SIX_PM - timedelta(minutes=40)),
        "scale_out needed 5",
        'scale out by 5 at 0: "evening" wants 12 until 16:00:00Z; 12 needed but per_action allows 5',
    ),
    "a floor is reached whatever the load": (
        at_load(0, 5, overrides=(FLOOR,)),
        "scale_out needed 3",
        'scale out by 3 at 5: floor 8 by ana until 13:00:00Z ("derby tonight")',
    ),
    "a floor below the load changes nothing": (at_load(4000, 5, overrides=(FLOOR,)), "scale_out needed 5"),
    "targets do not wait for the stabilization window": (
        at_load(4000, 5, of=policy(stabilization_window=timedelta(minutes=2)), overrides=(FLOOR,)),
        "scale_out needed 3",
    ),
    "the largest target counts": (
        at_load(0, 5, of=policy(minimum=6), overrides=(FLOOR, order("floor", 7, id=2))),
        "scale_out needed 3",
    ),
}

BOUGHT = purchase(1, "fulfilled", asked=5)
OTHERS = policy(capacity={"query": "sum(edge_workers_ready)"})

SUPPLY: dict[str, Row] = {
    "bought workers that the capacity query does not know yet are not bought again": (  # case 5
        at_load(6000, 0, BOUGHT, of=OTHERS, capacity=capacity(workers(10) + arrived_workers(BOUGHT), counted=10)),
        "hold enough 0",
    ),
    "nor where the list cannot tell them apart, for as long as they warm up": (  # case 5
        at_load(
            6000,
            0,
            BOUGHT,
            of=OTHERS,
            capacity=capacity(arrived_workers(BOUGHT, ready_at=at(minutes=-2)), counted=10, alone=False),
        ),
        "hold enough 0",
    ),
    "a worker bought and settled by a newer look than the one at hand is not bought again": (
        at_load(6000, 10, BOUGHT),
        "hold enough 0",
        'hold at 10: "sessions" wants 15 (6000 at 400 each), 5 already in flight',
    ),
    "an accepted purchase counts while nothing of it is listed": (
        at_load(6000, 12, purchase(1, "accepted", asked=3)),
        "hold enough 0",
    ),
    "so does one of unknown outcome": (at_load(6000, 12, purchase(1, "unknown", asked=3)), "hold enough 0"),
    "a rejected one counts for nothing": (at_load(6000, 12, purchase(1, "rejected", asked=3)), "scale_out needed 3"),
    "what an expired purchase still lacks is bought again": (
        at_load(6000, 12, purchase(1, "expired", asked=3, sent_at=at(hours=-9))),
        "scale_out needed 3",
    ),
    "twenty workers not ready for 15 minutes are a cut line, not a shortage": (  # case 11
        at_load(9000, 0, capacity=capacity(lost(20))),
        "hold cluster_unhealthy 0",
        'hold at 0: "sessions" wants 23 (9000 at 400 each), 20 just lost, '
        "would buy 3 but 20 workers were lost at once, which is no shortage to buy for",
    ),
    "lost ones count as supply, so their load buys nothing": (  # case 11
        at_load(8000, 0, capacity=capacity(lost(20))),
        "hold enough 0",
        'hold at 0: "sessions" wants 20 (8000 at 400 each), 20 just lost',
    ),
    "lost ones count against maximum": (  # case 11
        at_load(8400, 0, of=policy(maximum=20), capacity=capacity(workers(17) + lost(3))),
        "blocked maximum 0",
        'blocked at 17: "sessions" wants 21 (8400 at 400 each), 3 just lost, '
        "1 needed but maximum 20 leaves 0, 20 are paid",
    ),
    "a worker lost for replace_after is replaced": (
        at_load(4800, 0, capacity=capacity(workers(11) + lost(1, since=at(minutes=-30)))),
        "scale_out needed 1",
    ),
    "a second earlier it is not": (
        at_load(4800, 0, capacity=capacity(workers(11) + lost(1, since=at(minutes=-30, seconds=1)))),
        "hold enough 0",
    ),
    "an unrenewed worker is replaced before its term ends": (  # case 32
        at_load(
            4800,
            0,
            of=policy(worker_auto_renew=False),
            capacity=capacity(workers(2) + workers(10, prefix="june", expires_at=at(hours=1))),
        ),
        "scale_out needed 10",
        'scale out by 10 at 12: "sessions" wants 12 (4800 at 400 each), 10 about to lapse',
    ),
    "not earlier than replace_before": (  # case 32
        at_load(
            4800,
            0,
            of=policy(worker_auto_renew=False),
            capacity=capacity(workers(2) + workers(10, prefix="june", expires_at=at(hours=1, seconds=1))),
        ),
        "hold enough 0",
    ),
    "a worker that renews itself never lapses": (  # case 32
        at_load(4800, 0, capacity=capacity(workers(12, expires_at=at(minutes=1)))),
        "hold enough 0",
    ),
    "a policy made to renew later does not reach back to what was bought before": (  # case 32
        at_load(
            400,
            0,
            BOUGHT_UNRENEWED := purchase(1, "fulfilled", asked=1, of=policy(worker_auto_renew=False)),
            capacity=capacity(arrived_workers(BOUGHT_UNRENEWED, expires_at=at(minutes=30))),
        ),
        "scale_out needed 1",
    ),
    "a dry run imagines its workers once": (  # case 39
        at_load(6800, 12, purchase(1, asked=5, imagined=True, sent_at=at(minutes=-9)), of=policy(dry_run=True)),
        "hold enough 0",
        'hold at 12: "sessions" wants 17 (6800 at 400 each), 5 already in flight',
    ),
    "imagined workers that arrived meet the load for a week": (  # case 39
        at_load(
            6800,
            12,
            purchase(1, "fulfilled", asked=5, imagined=True, sent_at=at(days=-7), arrivals=arrivals(1, 5, at(days=-7))),
            of=policy(dry_run=True),
        ),
        "hold enough 0",
        'hold at 17: "sessions" wants 17 (6800 at 400 each), which is met',
    ),
    "a mean is carried by the real workers only": (  # case 39
        facts(
            policy(checks=(setpoint(),), dry_run=True),
            readings=(reading("0.91", "utilization"),),
            capacity=capacity(workers(10)),
            history=history(purchase(1, "fulfilled", asked=4, imagined=True, arrivals=arrivals(1, 4, at(hours=-1)))),
        ),
        "hold enough 0",
        'hold at 14: "utilization" wants 14 (0.91 over 10 workers, target 0.65), which is met',
    ),
}

ROWS = DEMAND | STEPS | GAPS | TARGETS | SUPPLY


@rows(ROWS)
def test_decides(given: Facts, expected: str, sentence: str | None) -> None:
    check(given, expected, sentence)


@rows(ROWS)
def test_decides_the_same_from_stored_facts(given: Facts, expected: str, sentence: str | None) -> None:
    facts_type, decision_type = TypeAdapter(Facts), TypeAdapter(Decision)
    stored = facts_type.validate_json(facts_type.dump_json(given))
    decision = decide(given)
    assert stored == given
    assert decide(stored) == decision
    assert decision_type.validate_json(decision_type.dump_json(decision)) == decision


def test_an_evaluation_survives_its_storage() -> None:
    given = at_load(5873, 12, purchase(1, "unknown"), of=policy(budgets=(budget(10),)), overrides=(order("freeze"),))
    evaluation_type = TypeAdapter(Evaluation)
    evaluation = Evaluation(given, decide(given))
    assert evaluation_type.validate_json(evaluation_type.dump_json(evaluation)) == evaluation


@pytest.mark.parametrize(
    "given",
    [at_load(5873, 12), facts(capacity=gap()), at_load(5873, 12, purchase(1, "unknown"), overrides=(order("freeze"),))],
    ids=["buying", "without a count of the workers", "forbidden twice"],
)
def test_every_rule_leaves_its_verdict_in_order(given: Facts) -> None:
    assert [verdict.rule for verdict in decide(given).verdicts] == [name for name, _ in RULES]


def test_gaps_are_told_by_name() -> None:
    given = facts(TWO, readings=(unread(), reading(1200, "streams")), capacity=gap(GapReason.INCONSISTENT))
    assert [(name, found.reason) for name, found in decide(given).gaps] == [
        ("sessions", GapReason.TIMEOUT),
        ("capacity", GapReason.INCONSISTENT),
    ]


def test_a_lost_race_holds_and_keeps_what_it_would_have_done() -> None:
    given = at_load(5873, 12)
    decision = withheld(Evaluation(given, decide(given)), Reason.RACED, "another replica was first").decision
    assert (decision.outcome, decision.reason, decision.add) == (Outcome.HOLD, Reason.RACED, 0)
    assert decision.sentence == (
        'hold: another replica was first; otherwise: scale out by 3 at 12: "sessions" wants 15 (5873 at 400 each)'
    )


@pytest.mark.parametrize("reason", [Reason.RACED, Reason.NO_PASSWORD, Reason.GAP, Reason.CLOCK])
def test_what_was_withheld_is_decided_again_by_what_it_says_it_would_have_done(reason: Reason) -> None:
    given = at_load(5873, 12)
    held = withheld(Evaluation(given, decide(given)), reason, "the readings were taken 45 s ago")
    assert differences(held) == ()
    changed = replace(held, decision=replace(held.decision, sentence=held.decision.sentence + "!"))
    assert "sentence" in differences(changed)


def test_a_purchase_is_not_withheld_for_what_the_rules_decide() -> None:
    given = at_load(5873, 12)
    with pytest.raises(ValueError, match="cooldown"):
        withheld(Evaluation(given, decide(given)), Reason.COOLDOWN, "it was said")


class TestRuns:
    """How the runs that stabilization reads are kept."""

    POLICY = policy(stabilization_window=timedelta(minutes=2))

    def test_the_same_demand_extends_a_run(self) -> None:
        runs = (run(12, at(minutes=-1), at(seconds=-30), of=self.POLICY),)
        (only,) = next_runs(self.POLICY, runs, runs[0].wanted, NOW)
        assert (only.first_at, only.last_at, only.n) == (at(minutes=-1), NOW, 3)

    def test_another_demand_begins_one(self) -> None:
        runs = (run(12, at(minutes=-1), at(seconds=-30), of=self.POLICY),)
        assert [kept.wanted for kept in next_runs(self.POLICY, runs, None, NOW)] == [12, None]

    def test_a_hole_is_not_extended_over(self) -> None:
        runs = (run(12, at(minutes=-5), at(seconds=-76), of=self.POLICY),)
        assert len(next_runs(self.POLICY, runs, runs[0].wanted, NOW)) == 2

    def test_one_missed_evaluation_is_no_hole(self) -> None:
        runs = (run(12, at(minutes=-5), at(seconds=-75), of=self.POLICY),)
        assert len(next_runs(self.POLICY, runs, runs[0].wanted, NOW)) == 1

    def test_another_policy_version_begins_one(self) -> None:
        runs = (run(12, at(minutes=-5), at(seconds=-30), of=policy(maximum=7)),)
        assert len(next_runs(self.POLICY, runs, runs[0].wanted, NOW)) == 2

    def test_runs_that_no_window_needs_are_dropped(self) -> None:
        runs = (
            run(1, at(minutes=-9), at(minutes=-8), of=self.POLICY),
            run(2, at(minutes=-3.5), at(minutes=-3), of=self.POLICY),
        )
        assert [kept.wanted for kept in next_runs(self.POLICY, runs, None, NOW)] == [2, None]

    def test_the_same_evaluation_again_changes_nothing(self) -> None:
        runs = (run(12, at(minutes=-1), NOW, of=self.POLICY),)
        assert next_runs(self.POLICY, runs, None, NOW) is runs

    def test_the_watch_of_a_clock_that_was_ahead_begins_anew(self) -> None:
        runs = (
            run(12, at(minutes=-9), at(minutes=-1), of=self.POLICY),
            run(12, at(minutes=-0.5), at(minutes=5), of=self.POLICY),
        )
        assert next_runs(self.POLICY, runs, Fraction(12), NOW) == (run(12, NOW, NOW, of=self.POLICY),)
