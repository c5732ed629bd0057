"""Effects: what an order would do to one policy now, and what would hold it back.

The rules themselves tell, over the purchases and overrides there are and what the latest evaluation found of workers
and cluster; nothing outside is asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

from autoscaler.decision import Decision
from autoscaler.facts import Draft, Facts, Verdict
from autoscaler.model import Gap, GapReason, History, Override, OverrideKind, Restoral
from autoscaler.policy import Policy
from autoscaler.purchase import done_of_order
from autoscaler.restoral import what_was_done
from autoscaler.rules import backoff, bounds, budgets, cooldown, freeze, per_action, purchase_open

_RULES = (bounds, per_action, budgets, purchase_open, backoff, cooldown, freeze)
_IMAGINED = {True: " (dry run: only imagined)", False: ""}
_NO_OBJECTION = ("none", "running", "not known", "node quota")  # how rules begin that do not object


@dataclass(frozen=True, slots=True)
class Effect:
    """What an order would do to one policy now."""

    policy: str
    imagined: bool | None  # it is a dry run's; None, here and below: the policy's file cannot be read here
    workers: int  # that it would have bought by and by: all of a buy, what a floor lacks; 0 for a freeze or cap
    money: Fraction | None  # for those, at once; None also: the policy names no price
    currency: str | None
    says: str  # one clause
    waits: tuple[str, ...] = ()  # what would hold it back now, one clause each


def effect_of(
    order: Override,
    name: str,
    policy: Policy | None,
    decision: Decision | None,
    history: History,
    others: tuple[Override, ...],
    now: datetime,
) -> Effect:
    """What ``order`` would do to the policy of this name.

    ``policy`` and ``decision``, its latest, are None where they are not known here; ``history`` is read for orders that
    may buy; ``others`` are the other orders in force for it.
    """
    supply = None if decision is None else decision.supply
    match order.kind:
        case OverrideKind.BUY:
            missing = _lacking(order, name, history)
            says = f"buys {missing}"
            if policy is not None and missing > policy.limits.per_action:
                says += f", in portions of {policy.limits.per_action}"
        case OverrideKind.FLOOR if supply is not None:
            missing = max(0, (order.workers or 0) - supply.total)
            says = f"wants {order.workers}, {supply.total} in supply: buys {missing}"
        case OverrideKind.FLOOR:
            missing, says = 0, f"wants {order.workers}; how many there are is not known"
        case OverrideKind.CAP:
            missing, says = 0, f"has at most {order.workers} paid"
            if supply is not None:
                says += f", {supply.paid} are now"
        case OverrideKind.FREEZE:
            missing, says = 0, "buys nothing"
            if decision is not None and decision.add:
                says += f"; it was about to buy {decision.add}"
    if policy is None:
        return Effect(name, None, missing, None, None, f"{says}; its file cannot be read here")
    price, months = policy.price_per_worker_month, policy.worker.worker_period
    waits: tuple[str, ...] = ()
    if missing:
        waits = tuple(_waits(order, missing, policy, decision, history, others, now))
    money = None if price is None else missing * price * months
    return Effect(name, policy.dry_run, missing, money, policy.currency, says + _IMAGINED[policy.dry_run], waits)


def _waits(
    order: Override,
    missing: int,
    policy: Policy,
    decision: Decision | None,
    history: History,
    others: tuple[Override, ...],
    now: datetime,
) -> Iterator[str]:
    """What would hold back ``missing`` workers for an order now, by the rules, each asked by itself."""
    if decision is None:
        yield "it has not been evaluated yet"
        return
    buys = order.kind is OverrideKind.BUY
    for other in others:
        if buys and other.kind is OverrideKind.BUY and (not order.id or other.id < order.id):
            lacking = _lacking(other, policy.name, history)
            if lacking:
                yield f"order {other.id} comes first and lacks {lacking} of {other.workers}"
    unknown = Gap(GapReason.NO_DATA, "not asked")
    known = replace(history, restoral=None)  # what a ledger may lack rests on a look at the cluster
    facts = Facts(policy, now, (), unknown, known, (*others, order), endpoint="", credential="")
    draft = Draft(
        supply=decision.supply or unknown,
        fleet=unknown,
        purchases=facts.own_purchases(),
        wishes=(),
        missing=missing,
        add=missing,
        order=order if buys else None,
    )
    for rule in _RULES:
        verdict = rule(draft, facts).verdicts[-1]
        if verdict.reason is not None:
            yield verdict.says
        elif verdict.add < missing and rule is not per_action:
            yield f"only {verdict.add} of {missing} now, because {verdict.says}"
    for name, gap in decision.gaps:
        if name == "capacity":
            yield f"the workers cannot be counted ({gap.reason}: {gap.detail})"
    yield from (verdict.says for verdict in decision.verdicts if _objects(verdict, history.restoral))


def _lacking(order: Override, policy: str, history: History) -> int:
    """Workers that an order to buy still lacks for one policy; a history holds purchases of others beside it."""
    done = done_of_order(order.id, (purchase for purchase in history.purchases if purchase.policy == policy))
    return max(0, (order.workers or 0) - done)


def _objects(verdict: Verdict, restoral: Restoral | None) -> bool:
    """Whether a rule that rests on the cloud and its credential objected at the latest evaluation, or would have."""
    if verdict.rule == "purchase_open":
        return restoral is not None and verdict.says.startswith(what_was_done(restoral))
    if verdict.rule not in ("cluster", "refused"):
        return False
    return verdict.reason is not None or not verdict.says.startswith(_NO_OBJECTION)
