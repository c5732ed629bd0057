"""What forbids a purchase that is needed, or makes it wait: each rule at its boundaries, and every reason."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from autoscaler.decision import decide
from autoscaler.facts import Facts, Reason
from autoscaler.model import Purchase, RefusalClass, Restoral, Run
from tests import test_decision
from tests.build import (
    NOW,
    arrived_workers,
    at,
    budget,
    capacity,
    cluster,
    facts,
    history,
    joining,
    lost,
    order,
    policy,
    purchase,
    run,
    schedule,
    warming,
    window,
    worker,
    workers,
)
from tests.deciding import Row, at_load, check, lacking, rows

STABLE = policy(stabilization_window=timedelta(minutes=2))
SHORT = lacking(3)  # 12 workers, 15 wanted
LONG_AGO = at(hours=-3)
WANTS_15 = '"sessions" wants 15 (6000 at 400 each)'


def watched(*runs: Run, load: int = 6000) -> Facts:
    return at_load(load, 12, of=STABLE, history=history(runs=runs))


def wanting(wanted: int | None, first: datetime, last: datetime) -> Run:
    return run(wanted, first, last, of=STABLE)


STABILIZATION: dict[str, Row] = {
    "a first evaluation has not watched long enough": (
        watched(),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, its 2m stabilization window is full at 12:02:00Z",
    ),
    "a window is full with an evaluation just at its start": (
        watched(wanting(15, at(minutes=-2), at(seconds=-30))),
        "scale_out needed 3",
    ),
    "a second later it is not": (
        watched(wanting(15, at(minutes=-2, seconds=1), at(seconds=-30))),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, its 2m stabilization window is full at 12:00:01Z",
    ),
    "a daemon that was off for an hour starts to watch afresh": (  # case 18
        watched(wanting(15, at(hours=-2), at(minutes=-59))),
        "hold stabilization 0",
    ),
    "one missed evaluation makes no hole": (
        watched(wanting(15, at(minutes=-9), at(seconds=-75))),
        "scale_out needed 3",
    ),
    "a hole is more than two and a half periods": (
        watched(wanting(15, at(minutes=-9), at(seconds=-76))),
        "hold stabilization 0",
    ),
    "a hole between two runs counts too": (
        watched(wanting(15, at(minutes=-9), at(minutes=-3)), wanting(16, at(seconds=-100), at(seconds=-30))),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, its 2m stabilization window is full at 12:00:20Z",
    ),
    "what another version of the policy wanted does not count": (
        watched(run(15, at(minutes=-9), at(seconds=-30), of=policy(maximum=99))),
        "hold stabilization 0",
    ),
    "the demand of this very second counts": (  # case 19
        watched(wanting(20, at(minutes=-9), at(seconds=-30)), load=5200),
        "scale_out needed 1",
    ),
    "load that fell this very second buys nothing on the past": (  # case 19
        watched(wanting(20, at(minutes=-9), at(seconds=-30)), load=4800),
        "hold enough 0",
    ),
    "only the smallest demand of the window is bought": (
        watched(
            wanting(15, at(minutes=-9), at(minutes=-1.5)),
            wanting(13, at(minutes=-1), at(minutes=-1)),
            wanting(15, at(seconds=-30), at(seconds=-30)),
        ),
        "scale_out needed 1",
        f"scale out by 1 at 12: {WANTS_15}, only 13 wanted throughout the last 2m",
    ),
    "a low demand that just left the window is forgotten": (
        watched(wanting(1, at(minutes=-9), at(minutes=-2)), wanting(15, at(minutes=-1.5), at(seconds=-30))),
        "scale_out needed 3",
    ),
    "one still in it counts": (
        watched(wanting(1, at(minutes=-9), at(minutes=-2, seconds=1)), wanting(15, at(minutes=-1.5), at(seconds=-30))),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, only 1 wanted throughout the last 2m",
    ),
    "a gap within the window asked for nothing": (
        watched(wanting(None, at(minutes=-9), at(minutes=-1)), wanting(15, at(seconds=-30), at(seconds=-30))),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, no workers were wanted at some time in the last 2m",
    ),
    "a target that is met does not hide what waits": (
        at_load(6000, 12, of=policy(stabilization_window=timedelta(minutes=2), minimum=2)),
        "hold stabilization 0",
        f"hold at 12: {WANTS_15}, its 2m stabilization window is full at 12:02:00Z",
    ),
    "demand that the workers carry waits for nothing": (at_load(400, 12, of=STABLE), "hold enough 0"),
}

BUY = order("buy", 5)
PART = purchase(1, "fulfilled", asked=2, order_id=1, sent_at=at(minutes=-1))

ORDERS: dict[str, Row] = {
    "what served it before the policy moved to this cluster is not bought again": (
        lacking(0, purchase(1, "fulfilled", asked=5, order_id=1, of=policy(cluster_id="C2")), overrides=(BUY,)),
        "hold enough 0",
    ),
    "a person's order is bought though three are in flight for load": (  # case 15
        at_load(6000, 0, capacity=capacity(workers(12) + joining(3)), overrides=(order("buy", 3),)),
        "scale_out ordered 3",
        'scale out by 3 at 12: order 1 of ana lacks 3 of 3 ("derby tonight")',
    ),
    "an order goes before what the load lacks": (
        lacking(3, overrides=(order("buy", 1),)),
        "scale_out ordered 1",
    ),
    "an order that was bought is done, whoever crashed in between": (  # case 16
        lacking(0, purchase(1, "accepted", asked=5, order_id=1), overrides=(BUY,)),
        "hold enough 0",
    ),
    "an order whose purchase is of unknown outcome is not bought again": (
        lacking(0, purchase(1, "unknown", asked=5, order_id=1), overrides=(BUY,)),
        "hold enough 0",
        'hold at 12: "sessions" wants 12 (4800 at 400 each), 5 already in flight; '
        "the outcome of purchase 1 (5 workers) is unknown, see `autoscaler purchases show 1`",
    ),
    "what is left of an order is bought": (
        lacking(0, PART, overrides=(BUY,), capacity=capacity(workers(12) + arrived_workers(PART))),
        "scale_out ordered 3",
        'scale out by 3 at 14: order 1 of ana lacks 3 of 5 ("derby tonight")',
    ),
    "what failed of an order is bought again, after its own backoff": (
        lacking(0, purchase(1, "failed", asked=5, failed=5, order_id=1), overrides=(BUY,)),
        "scale_out ordered 5",
    ),
    "the oldest order comes first": (
        lacking(0, overrides=(order("buy", 7, id=2), order("buy", 5, id=1))),
        "scale_out ordered 5",
    ),
    "the next order comes after it": (
        lacking(0, purchase(1, asked=5, order_id=1), overrides=(order("buy", 7, id=2), BUY)),
        "scale_out ordered 7",
    ),
    "an order does not wait for the stabilization window": (
        at_load(0, 12, of=STABLE, overrides=(BUY,)),
        "scale_out ordered 5",
    ),
    "an order does not wait for cooldown": (
        lacking(0, purchase(1, sent_at=at(minutes=-1)), overrides=(BUY,)),
        "scale_out ordered 5",
    ),
    "an order does not wait for the backoff of others": (
        lacking(0, purchase(1, "failed", asked=1, failed=1, sent_at=at(minutes=-1)), overrides=(BUY,)),
        "scale_out ordered 5",
    ),
    "an order waits for its own backoff": (
        lacking(0, purchase(1, "failed", asked=5, failed=5, order_id=1, sent_at=at(minutes=-1)), overrides=(BUY,)),
        "hold backoff 0",
        'hold at 12: order 1 of ana lacks 5 of 5 ("derby tonight"), '
        "would buy 5 but backoff until 12:04:00Z after purchase 1 failed",
    ),
    "an order is bound by maximum": (
        lacking(0, of=policy(maximum=14), overrides=(BUY,)),
        "scale_out ordered 2",
        'scale out by 2 at 12: order 1 of ana lacks 5 of 5 ("derby tonight"); '
        "5 needed but maximum 14 leaves 2, 12 are paid",
    ),
    "an order is bound by per_action": (lacking(0, of=policy(per_action=2), overrides=(BUY,)), "scale_out ordered 2"),
    "an order is bound by budgets": (
        lacking(0, of=policy(budgets=(budget(4),)), overrides=(BUY,)),
        "scale_out ordered 4",
    ),
    "an order waits while a purchase is open": (
        lacking(0, purchase(1, "sending", asked=1), overrides=(BUY,)),
        "blocked purchase_open 0",
    ),
    "an order waits for a busy cluster": (
        lacking(0, capacity=capacity(workers(12), cluster=cluster("scaling")), overrides=(BUY,)),
        "hold cluster_busy 0",
    ),
    "an order is refused like any purchase": (
        lacking(0, purchase(1, "rejected", refusal=RefusalClass.POLICY, sent_at=LONG_AGO), overrides=(BUY,)),
        "blocked refused_policy 0",
    ),
    "an order is frozen with the rest": (
        lacking(0, overrides=(BUY, order("freeze", id=2))),
        "blocked freeze 0",
        'blocked at 12: order 1 of ana lacks 5 of 5 ("derby tonight"), '
        'would buy 5 but frozen by ana until 13:00:00Z ("derby tonight")',
    ),
}

CAP = order("cap", 13)

LIMITS: dict[str, Row] = {
    "maximum leaves what is left of it": (
        lacking(3, of=policy(maximum=14)),
        "scale_out needed 2",
        f"scale out by 2 at 12: {WANTS_15}; 3 needed but maximum 14 leaves 2, 12 are paid",
    ),
    "at maximum nothing is bought": (
        lacking(3, of=policy(maximum=12)),
        "blocked maximum 0",
        f"blocked at 12: {WANTS_15}, 3 needed but maximum 12 leaves 0, 12 are paid",
    ),
    "beyond maximum nothing is bought": (lacking(3, of=policy(maximum=7)), "blocked maximum 0"),
    "what was asked for and never came in time may be paid for": (
        lacking(3, purchase(1, "expired", asked=3, sent_at=LONG_AGO), of=policy(maximum=15)),
        "blocked maximum 0",
        f"blocked at 12: {WANTS_15}, 3 needed but maximum 15 leaves 0, 15 are paid",
    ),
    "until the months asked for are over": (
        lacking(
            3,
            purchase(1, "expired", asked=3, sent_at=datetime.fromisoformat("2026-05-01T12:00Z")),
            of=policy(maximum=15),
        ),
        "scale_out needed 3",
    ),
    "a written-off worker is paid for": (
        at_load(4800, 0, of=policy(maximum=12), capacity=capacity(workers(10) + lost(2, since=at(hours=-1)))),
        "blocked maximum 0",
    ),
    "workers that only the query counts are paid for": (
        at_load(6000, 0, of=policy(maximum=14), capacity=capacity(workers(5) + joining(1), counted=12, alone=False)),
        "scale_out needed 1",
    ),
    "a cap below maximum holds": (
        lacking(3, overrides=(order("cap", 12),)),
        "blocked cap 0",
        f"blocked at 12: {WANTS_15}, 3 needed but "
        'cap 12 by ana until 13:00:00Z ("derby tonight") leaves 0, 12 are paid',
    ),
    "the lowest cap counts": (lacking(3, overrides=(order("cap", 14, id=2), CAP)), "scale_out needed 1"),
    "a cap above maximum changes nothing": (
        lacking(3, of=policy(maximum=12), overrides=(CAP,)),
        "blocked maximum 0",
    ),
    "a cap is not undone by a floor": (
        at_load(0, 12, overrides=(order("floor", 20, id=2), CAP)),
        "scale_out needed 1",
    ),
    "one purchase adds no more than per_action": (
        lacking(8, of=policy(per_action=5)),
        "scale_out needed 5",
        'scale out by 5 at 12: "sessions" wants 20 (8000 at 400 each); 8 needed but per_action allows 5',
    ),
    "a budget leaves what is left of it": (
        lacking(
            3, purchase(1, "fulfilled", asked=8, sent_at=at(hours=-23), arrivals=()), of=policy(budgets=(budget(10),))
        ),
        "scale_out needed 2",
        f"scale out by 2 at 12: {WANTS_15}; 3 needed but budget of 10 workers per 1d leaves 2, 8 are committed",
    ),
    "a spent budget blocks": (
        lacking(
            3, purchase(1, "fulfilled", asked=10, sent_at=at(hours=-23), arrivals=()), of=policy(budgets=(budget(10),))
        ),
        "blocked budget 0",
        f"blocked at 12: {WANTS_15}, 3 needed but budget of 10 workers per 1d leaves 0, 10 are committed",
    ),
    "a budget of money says so": (
        lacking(3, of=policy(budgets=(budget(money=400),), price_per_worker_month=180)),
        "scale_out needed 2",
        f"scale out by 2 at 12: {WANTS_15}; 3 needed but budget of 400 money per 1d leaves 2, 0 are committed",
    ),
    "the tightest budget counts": (
        lacking(3, of=policy(budgets=(budget(10), budget(1, per=timedelta(hours=1))))),
        "scale_out needed 1",
    ),
    "what is unknown is committed": (
        lacking(3, replace(purchase(1, "unknown", asked=9), cluster_id="C2"), of=policy(budgets=(budget(10),))),
        "scale_out needed 1",
    ),
}


def of_cluster(**about: object) -> Facts:
    return lacking(3, capacity=capacity(workers(12), cluster=cluster(**about)))  # type: ignore[arg-type]


def refused(refusal: str, id: int = 1, **fields: object) -> Purchase:
    fields = {"sent_at": LONG_AGO, "code": "Code", "message": "no", "asked": 3} | fields
    return purchase(id, "rejected", refusal=RefusalClass(refusal), **fields)  # type: ignore[arg-type]


CHANGED = policy(maximum=99)

CLOUD: dict[str, Row] = {
    "a purchase about to be sent blocks the next": (
        lacking(4, purchase(1, "intended", asked=1)),
        "blocked purchase_open 0",
        'blocked at 12: "sessions" wants 16 (6400 at 400 each), 1 already in flight, '
        "would buy 3 but purchase 1 is about to be sent",
    ),
    "a purchase being sent blocks the next": (
        lacking(4, purchase(1, "sending", asked=1)),
        "blocked purchase_open 0",
    ),
    "a ledger that was just restored may lack a purchase": (
        lacking(3, history=history(restoral=Restoral(NOW))),
        "blocked restored 0",
    ),
    "a purchase of unknown outcome blocks the next": (  # case 23
        lacking(4, purchase(1, "unknown", asked=1)),
        "blocked purchase_unknown 0",
        'blocked at 12: "sessions" wants 16 (6400 at 400 each), 1 already in flight, would buy 3 but '
        "the outcome of purchase 1 (1 workers) is unknown, see `autoscaler purchases show 1`",
    ),
    "another policy's unknown purchase in the same cluster blocks too": (
        lacking(3, purchase(1, "unknown", of=policy(name="other"))),
        "blocked purchase_unknown 0",
    ),
    "one in another cluster does not": (
        lacking(3, purchase(1, "unknown", of=policy(cluster_id="C2"))),
        "scale_out needed 3",
    ),
    "accepted and joining for 20 minutes: more is bought for more load": (  # case 27
        at_load(
            6400,
            0,
            purchase(1, asked=3, sent_at=at(minutes=-20)),
            capacity=capacity(workers(12)),
        ),
        "scale_out needed 1",
    ),
    "a cluster that is scaling is waited for": (  # case 27
        of_cluster(state="scaling"),
        "hold cluster_busy 0",
        f"hold at 12: {WANTS_15}, would buy 3 but the cluster is scaling",
    ),
    "somebody else's scale-out is waited for": (  # case 23
        lacking(3, capacity=capacity(workers(12), foreign_tasks=("T-9",))),
        "hold foreign_scale_out 0",
        f"hold at 12: {WANTS_15}, would buy 3 but somebody else is scaling out the cluster (task T-9)",
    ),
    "a cluster that is no edge cluster is not bought for": (
        of_cluster(profile="Default"),
        "blocked not_edge 0",
        f"blocked at 12: {WANTS_15}, would buy 3 but the cluster's profile is Default, not Edge",
    ),
    "the node quota bounds a purchase": (of_cluster(size=98, node_quota=100), "scale_out needed 2"),
    "a full quota blocks": (
        of_cluster(size=100, node_quota=100),
        "blocked quota 0",
        f"blocked at 12: {WANTS_15}, 3 needed but node quota 100 leaves 0, the cluster has 100 nodes",
    ),
    "three lost workers are no lost site": (
        at_load(3200, 0, capacity=capacity(workers(3) + lost(3))),
        "scale_out needed 2",
    ),
    "four of nine are less than 45%": (
        at_load(4000, 0, capacity=capacity(workers(5) + lost(4))),
        "scale_out needed 1",
    ),
    "four of eight are a lost site": (
        at_load(4000, 0, capacity=capacity(workers(4) + lost(4))),
        "hold cluster_unhealthy 0",
    ),
    "a refused policy waits for its change": (
        lacking(3, refused("policy")),
        "blocked refused_policy 0",
        f"blocked at 12: {WANTS_15}, would buy 3 but purchase 1 was refused (Code: no), until the policy changes",
    ),
    "a changed policy tries again": (lacking(3, refused("policy"), of=CHANGED), "scale_out needed 3"),
    "a person's retry ends a refusal": (lacking(3, refused("policy", retried_at=NOW)), "scale_out needed 3"),
    "another policy's own refusal is its own": (
        lacking(3, refused("policy", of=policy(name="other"))),
        "scale_out needed 3",
    ),
    "wrong credentials are not tried again and again": (  # case 30
        lacking(3, refused("account")),
        "blocked refused_account 0",
        f"blocked at 12: {WANTS_15}, would buy 3 but purchase 1 was refused (Code: no), "
        "until the credential changes or `autoscaler purchases retry`",
    ),
    "nor by another policy of the cluster": (  # case 30
        lacking(3, refused("account", of=policy(name="other"))),
        "blocked refused_account 0",
    ),
    "another credential is tried": (
        lacking(3, refused("account", credential="credential-0")),
        "scale_out needed 3",
    ),
    "a retry tries the same credential": (lacking(3, refused("account", retried_at=NOW)), "scale_out needed 3"),
    "a purchase that was since accepted shows the credential right": (
        lacking(3, refused("account"), purchase(2, "fulfilled", asked=1, arrivals=(), sent_at=LONG_AGO)),
        "scale_out needed 3",
    ),
    "a cancelled one shows nothing": (
        lacking(3, refused("account"), purchase(2, "cancelled")),
        "blocked refused_account 0",
    ),
    "a cloud that no longer sells this way is not asked again": (
        lacking(3, history=history(gone=[refused("gone", cluster_id="C2", policy="other")])),
        "blocked refused_gone 0",
    ),
    "another endpoint may still sell": (
        lacking(3, history=history(gone=[refused("gone")]), endpoint="https://cs.cn-beijing.aliyuncs.com"),
        "scale_out needed 3",
    ),
    "nor where replicas with other credentials were refused since": (
        lacking(3, history=history(gone=[refused("gone"), refused("gone", id=2, credential="credential-2")])),
        "blocked refused_gone 0",
    ),
    "another credential may be sold to": (
        lacking(3, history=history(gone=[refused("gone")]), credential="credential-2"),
        "scale_out needed 3",
    ),
}


def failed(id: int, ended_at: datetime, state: str = "failed", **fields: object) -> Purchase:
    fields = {"asked": 3, "failed": 3 if state == "failed" else 0, "sent_at": LONG_AGO, "ended_at": ended_at} | fields
    return purchase(id, state, **fields)  # type: ignore[arg-type]


def failures(count: int) -> tuple[Purchase, ...]:
    return tuple(failed(n, NOW) for n in range(1, count + 1))


WAITS: dict[str, Row] = {
    "after a failed purchase five minutes are waited": (
        lacking(3, failed(1, at(minutes=-5, seconds=1))),
        "hold backoff 0",
        f"hold at 12: {WANTS_15}, would buy 3 but backoff until 12:00:01Z after purchase 1 failed",
    ),
    "and no longer": (lacking(3, failed(1, at(minutes=-5))), "scale_out needed 3"),
    "what the task said is told": (
        lacking(3, failed(1, NOW, message="InventoryExceeded")),
        "hold backoff 0",
        f"hold at 12: {WANTS_15}, would buy 3 but backoff until 12:05:00Z after purchase 1 failed (InventoryExceeded)",
    ),
    "an expired purchase failed too": (
        lacking(3, failed(1, NOW, "expired", asked=1)),
        "hold backoff 0",
    ),
    "so did one refused for want of stock or balance": (
        lacking(3, refused("later", ended_at=at(minutes=-4))),
        "hold backoff 0",
    ),
    "the pause doubles": (
        lacking(3, *failures(2)),
        "hold backoff 0",
        f"hold at 12: {WANTS_15}, would buy 3 but backoff until 12:10:00Z after 2 failed purchases",
    ),
    "up to half an hour": (
        lacking(3, *failures(40)),
        "hold backoff 0",
        f"hold at 12: {WANTS_15}, would buy 3 but backoff until 12:30:00Z after 40 failed purchases",
    ),
    "a full success ends it": (
        lacking(3, *failures(2), purchase(3, "fulfilled", asked=1, arrivals=(), sent_at=LONG_AGO, ended_at=NOW)),
        "scale_out needed 3",
    ),
    "a success that ended before the failure does not, though it was bought later": (
        lacking(
            3,
            failed(1, at(minutes=-1)),
            purchase(2, "fulfilled", asked=1, arrivals=(), sent_at=LONG_AGO, ended_at=at(minutes=-2)),
        ),
        "hold backoff 0",
    ),
    "a failure that a clock ahead told counts from the sending, and no longer": (
        lacking(3, failed(1, at(hours=2), sent_at=at(minutes=-10))),
        "scale_out needed 3",
    ),
    "and is waited for after that": (
        lacking(3, refused("later", sent_at=at(minutes=-4), ended_at=at(hours=2))),
        "hold backoff 0",
    ),
    "a busy cluster by a clock ahead is looked at again in 30 s": (
        lacking(3, refused("busy", sent_at=at(seconds=-30), ended_at=at(hours=2))),
        "scale_out needed 3",
    ),
    "a cancelled purchase neither fails nor succeeds": (
        lacking(3, failed(1, at(minutes=-1)), purchase(2, "cancelled")),
        "hold backoff 0",
    ),
    "a busy cluster is looked at again in 30 s": (
        lacking(3, refused("busy", ended_at=at(seconds=-29))),
        "hold backoff 0",
        f"hold at 12: {WANTS_15}, would buy 3 but backoff until 12:00:01Z after the busy cluster refused purchase 1",
    ),
    "a cancelled purchase does not hide the busy cluster": (
        lacking(3, refused("busy", ended_at=at(seconds=-29)), purchase(2, "cancelled", ended_at=NOW)),
        "hold backoff 0",
    ),
    "and no later": (lacking(3, refused("busy", ended_at=at(seconds=-30))), "scale_out needed 3"),
    "a busy cluster does not make the pause grow": (
        lacking(3, *(refused("busy", id=n, ended_at=at(seconds=-30)) for n in range(1, 9))),
        "scale_out needed 3",
    ),
    "after a purchase is sent nothing is bought for the cooldown": (
        lacking(4, purchase(1, asked=1, sent_at=at(minutes=-10, seconds=1))),
        "hold cooldown 0",
        'hold at 12: "sessions" wants 16 (6400 at 400 each), 1 already in flight, '
        "would buy 3 but cooldown until 12:00:01Z after purchase 1",
    ),
    "one sent by a clock that was ahead says so": (
        lacking(4, purchase(1, asked=1, sent_at=at(hours=1))),
        "hold cooldown 0",
        'hold at 12: "sessions" wants 16 (6400 at 400 each), 1 already in flight, '
        "would buy 3 but cooldown until 13:10:00Z after purchase 1, sent at 13:00:00Z by a clock that was ahead",
    ),
    "nor longer": (lacking(4, purchase(1, asked=1, sent_at=at(minutes=-10))), "scale_out needed 3"),
    "a purchase that was refused starts no cooldown": (
        lacking(3, refused("later", sent_at=at(minutes=-6), ended_at=at(minutes=-6))),
        "scale_out needed 3",
    ),
    "nor one that was surely not bought": (
        lacking(3, purchase(1, "not_bought", sent_at=at(minutes=-1))),
        "scale_out needed 3",
    ),
    "a purchase for a person's order starts one": (
        lacking(4, purchase(1, asked=1, sent_at=at(minutes=-1), order_id=1)),
        "hold cooldown 0",
    ),
    "another policy's purchase starts none": (
        lacking(3, purchase(1, sent_at=at(minutes=-1), of=policy(name="other"))),
        "scale_out needed 3",
    ),
    "a freeze says what would have been bought": (
        lacking(3, overrides=(order("freeze"),)),
        "blocked freeze 0",
        f'blocked at 12: {WANTS_15}, would buy 3 but frozen by ana until 13:00:00Z ("derby tonight")',
    ),
    "the later of two freezes counts, whichever was ordered first": (  # case 17
        lacking(
            3,
            overrides=(order("freeze", id=1, ends_at=at(hours=8)), order("freeze", id=2, ends_at=at(hours=3))),
        ),
        "blocked freeze 0",
        f'blocked at 12: {WANTS_15}, would buy 3 but frozen by ana until 20:00:00Z ("derby tonight")',
    ),
    "a freeze is named also where nothing is needed": (
        lacking(0, overrides=(order("freeze", ends_at=at(days=1)),)),
        "hold enough 0",
        'hold at 12: "sessions" wants 12 (4800 at 400 each), which is met; '
        'frozen by ana until 2026-06-02 12:00:00Z ("derby tonight")',
    ),
    "a freeze is named behind another reason": (
        lacking(3, of=policy(maximum=12), overrides=(order("freeze"),)),
        "blocked maximum 0",
        f"blocked at 12: {WANTS_15}, 3 needed but maximum 12 leaves 0, 12 are paid; "
        'frozen by ana until 13:00:00Z ("derby tonight")',
    ),
}

ROWS = STABILIZATION | ORDERS | LIMITS | CLOUD | WAITS


@rows(ROWS)
def test_decides(given: Facts, expected: str, sentence: str | None) -> None:
    check(given, expected, sentence)


def test_the_tables_lose_no_row() -> None:
    tables = (STABILIZATION, ORDERS, LIMITS, CLOUD, WAITS)
    assert len(ROWS) == sum(map(len, tables)), "two rows have the same sentence"


def test_every_reason_has_a_row() -> None:
    told = {row[1].split()[1] for row in (ROWS | test_decision.ROWS).values()}
    withheld = {Reason.RACED, Reason.NO_PASSWORD}  # decided where a purchase is reserved
    assert told == set(Reason) - withheld


def test_a_reason_has_one_outcome() -> None:
    for _, expected, *_ in (ROWS | test_decision.ROWS).values():
        outcome, reason, _ = expected.split()
        assert Reason(reason).outcome == outcome


@pytest.mark.parametrize(
    ("given", "objecting"),
    [
        (lacking(3, refused("policy"), overrides=(order("freeze"),)), ["refused", "freeze"]),
        (
            lacking(4, purchase(1, "unknown", asked=1, sent_at=NOW), overrides=(order("freeze"),)),
            ["purchase_open", "cooldown", "freeze"],
        ),
        (
            lacking(3, failed(1, NOW), capacity=capacity(workers(12), cluster=cluster("scaling"))),
            ["cluster", "backoff"],
        ),
    ],
    ids=["a refusal and a freeze", "an unknown purchase, cooldown and a freeze", "a busy cluster and backoff"],
)
def test_rules_go_on_after_one_has_said_no(given: Facts, objecting: list[str]) -> None:
    verdicts = [verdict for verdict in decide(given).verdicts if verdict.reason]
    assert [verdict.rule for verdict in verdicts] == objecting
    assert {verdict.add for verdict in verdicts} == {3}


def test_a_rule_says_no_only_to_something() -> None:
    beyond = lacking(0, of=policy(maximum=7), overrides=(order("freeze"),), capacity=capacity(workers(12)))
    assert [verdict.reason for verdict in decide(beyond).verdicts if verdict.reason] == [Reason.ENOUGH]


ONE_LAPSING = (worker("june", expires_at=at(hours=5)),)
AT_ONE = schedule(window("0 13 * * *", timedelta(hours=1), lead=timedelta(minutes=10)))

RECHECKS: dict[str, tuple[Facts, datetime | None]] = {
    "nothing that time changes": (lacking(3), None),
    "the end of a cooldown": (lacking(4, purchase(1, asked=1, sent_at=NOW)), at(minutes=10)),
    "no end of a cooldown, where nothing is lacking": (lacking(0, purchase(1, asked=1, sent_at=NOW)), None),
    "no end of a cooldown that comes after a cap": (
        lacking(4, purchase(1, asked=1, sent_at=NOW), overrides=(order("cap", 12),)),
        at(hours=1),
    ),
    "the end of a backoff": (lacking(3, failed(1, NOW)), at(minutes=5)),
    "the end of a busy cluster's pause": (lacking(3, refused("busy", ended_at=NOW)), at(seconds=30)),
    "the end of a freeze": (lacking(3, overrides=(order("freeze"),)), at(hours=1)),
    "the end of a cap": (lacking(3, overrides=(order("cap", 12),)), at(hours=1)),
    "the end of a floor": (lacking(0, overrides=(order("floor", 20),)), at(hours=1)),
    "the end of an order": (lacking(0, overrides=(order("buy", 5),)), at(hours=1)),
    "a full stabilization window": (watched(wanting(15, at(minutes=-1), at(seconds=-30))), at(minutes=1)),
    "the low demand that leaves it": (
        watched(wanting(1, at(minutes=-9), at(minutes=-1)), wanting(15, at(seconds=-30), at(seconds=-30))),
        at(minutes=1),
    ),
    "a window that opens": (facts(policy(checks=(AT_ONE,))), at(minutes=50)),
    "a window that closes": (facts(policy(checks=(AT_ONE,)), now=at(minutes=70)), at(hours=2)),
    "a budget that frees": (
        lacking(3, purchase(1, "fulfilled", 10, at(hours=-20), arrivals=()), of=policy(budgets=(budget(10),))),
        at(hours=4),
    ),
    "the later of two budgets that are spent": (
        lacking(
            3,
            purchase(1, "fulfilled", 10, at(hours=-20), arrivals=()),
            of=policy(budgets=(budget(10), budget(10, per=timedelta(days=2)))),
        ),
        at(hours=28),
    ),
    "the end of a warm-up": (at_load(400, 0, capacity=capacity(warming(since=at(minutes=-1)))), at(minutes=2)),
    "a worker that no longer is expected": (
        at_load(400, 0, capacity=capacity(joining(since=at(minutes=-20)))),
        at(minutes=70),
    ),
    "a lost worker that is to be replaced": (
        at_load(400, 0, capacity=capacity(lost(since=at(minutes=-10)))),
        at(minutes=20),
    ),
    "a term that ends": (
        at_load(400, 0, of=policy(worker_auto_renew=False), capacity=capacity(ONE_LAPSING)),
        at(hours=4),
    ),
    "the months of workers that never came": (
        lacking(0, purchase(1, "expired", sent_at=at(days=-2))),
        datetime.fromisoformat("2026-06-30T12:00Z"),
    ),
}


@pytest.mark.parametrize(("given", "expected"), RECHECKS.values(), ids=RECHECKS)
def test_a_decision_is_looked_at_again_at(given: Facts, expected: datetime | None) -> None:
    assert decide(given).recheck_at == expected
