"""Decisions: the pure function from what is known of a policy to what is bought, and why.

``decide`` computes what every check wishes, then hands a draft through the rules; the sentence it ends with is the log
line, the first line of ``explain``, the API's field and the page's text.
"""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from fractions import Fraction
from math import ceil

from autoscaler.facts import Draft, Facts, Reason, Verdict
from autoscaler.model import Capacity, CheckReading, Gap, GapReason, Outcome, Run
from autoscaler.policy import Check, Policy, Schedule
from autoscaler.rules import HOLE_PERIODS, LIMITING, WANTING
from autoscaler.strategy import Fleet, Wish, evaluate
from autoscaler.supply import Supply, changes_at, count, supply_before


@dataclass(frozen=True, slots=True)
class Decision:
    """The immutable result of one evaluation."""

    policy: str
    cluster_id: str
    at: datetime
    outcome: Outcome
    reason: Reason
    add: int  # workers to buy now; 0 unless outcome is scale_out
    order_id: int | None  # the buy order that this purchase serves
    demand: Fraction | None  # before stabilization; None: no check wants a number
    wanted: int | None  # after stabilization and targets, rounded up; None: nothing is wanted
    supply: Supply | None  # None: capacity is a gap
    gaps: tuple[tuple[str, Gap], ...]  # of checks, by their name; of the count of workers, by "capacity"
    verdicts: tuple[Verdict, ...]
    sentence: str
    recheck_at: datetime | None  # until then, as long as the readings want the same, the decision stays the same
    dry_run: bool = False  # what it buys is imagined; false too where a ledger is older than this word


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of one policy: what was known and what was decided."""

    facts: Facts
    decision: Decision


def decide(facts: Facts) -> Decision:
    """Decide what to buy for one policy, from ``facts`` alone: equal facts give equal decisions."""
    draft = missing(facts)
    for _, rule in LIMITING:
        draft = rule(draft, facts)
    reason = draft.reason or (Reason.NEEDED if draft.order is None else Reason.ORDERED)
    buys = reason.outcome is Outcome.SCALE_OUT
    gaps = [(name, wish) for name, wish in draft.wishes if isinstance(wish, Gap)]
    if isinstance(draft.supply, Gap):
        gaps.append(("capacity", draft.supply))
    return Decision(
        policy=facts.policy.name,
        cluster_id=facts.policy.cluster_id,
        at=facts.now,
        outcome=reason.outcome,
        reason=reason,
        add=draft.add if buys else 0,
        order_id=draft.order.id if buys and draft.order is not None else None,
        demand=draft.demand,
        wanted=None if draft.wanted is None else ceil(draft.wanted),
        supply=None if isinstance(draft.supply, Gap) else draft.supply,
        gaps=tuple(gaps),
        verdicts=draft.verdicts,
        sentence=_sentence(draft, reason),
        recheck_at=recheck_at(draft, facts),
        dry_run=facts.policy.dry_run,
    )


def missing(facts: Facts) -> Draft:
    """A decision before its limits: what is wanted and what that lacks.

    Where nothing is to be added, its reason and ``recheck_at`` are the decision's already.
    """
    draft = _begin(facts)
    for _, rule in WANTING:
        draft = rule(draft, facts)
    return draft


def recheck_at(draft: Draft, facts: Facts) -> datetime | None:
    """When time alone may change what a draft says."""
    return min((at for at in draft.recheck if at > facts.now), default=None)


# Another replica was first, no password, readings that are old by now, a clock set back since.
_WITHHOLDING = frozenset({Reason.RACED, Reason.NO_PASSWORD, Reason.GAP, Reason.CLOCK})


def withheld(evaluation: Evaluation, reason: Reason, why: str) -> Evaluation:
    """The evaluation as it stands when its purchase could not be reserved, for one of the reasons of that."""
    if reason not in _WITHHOLDING:
        raise ValueError(f"a purchase is not withheld for {reason}")
    verb = reason.outcome.value
    decision = replace(
        evaluation.decision,
        outcome=reason.outcome,
        reason=reason,
        add=0,
        order_id=None,
        sentence=f"{verb}: {why}; otherwise: {evaluation.decision.sentence}",
    )
    return replace(evaluation, decision=decision)


def differences(evaluation: Evaluation) -> tuple[str, ...]:
    """The fields of a stored decision that come out otherwise when it is decided again from its facts.

    Where the rules wanted to buy and the purchase could not be reserved, it is their decision that is replayed.
    """
    stored, again = evaluation.decision, decide(evaluation.facts)
    if stored.reason in _WITHHOLDING and stored.sentence.endswith(f"; otherwise: {again.sentence}"):
        again = replace(
            again,
            outcome=stored.outcome,
            reason=stored.reason,
            add=stored.add,
            order_id=stored.order_id,
            sentence=stored.sentence,
        )
    return tuple(f.name for f in fields(Decision) if getattr(stored, f.name) != getattr(again, f.name))


def next_runs(policy: Policy, runs: tuple[Run, ...], demand: Fraction | None, now: datetime) -> tuple[Run, ...]:
    """The runs as they stand after an evaluation at ``now``: the newest extended or a new one begun.

    A run is extended only over a hole that the stabilization window forgives, so that a longer one stays visible.
    """
    hole = HOLE_PERIODS * policy.evaluate_every
    last = runs[-1] if runs else None
    if last is not None and now == last.last_at:
        return runs
    if last is not None and now < last.last_at:
        runs, last = (), None  # by a clock that was ahead: what it says when it watched is worth nothing
    version = policy.version
    same = last is not None and (last.policy_version, last.wanted) == (version, demand) and now - last.last_at <= hole
    if same and last is not None:
        extended = (*runs[:-1], replace(last, last_at=now, n=last.n + 1))
    else:
        extended = (*runs, Run(version, demand, now, now, 1))
    oldest = now - policy.stabilization_window - hole
    needed = [run for run in extended if run.last_at >= oldest]
    return tuple(needed)


def standing(facts: Facts) -> tuple[Supply | Gap, Fleet | Gap]:
    """Where the workers stand, and what strategies reckon with of that; gaps while capacity is one."""
    if isinstance(facts.capacity, Gap):
        return facts.capacity, facts.capacity
    policy, now, purchases = facts.policy, facts.now, facts.own_purchases()
    supply = count(policy, facts.capacity, purchases, now)
    before = supply_before(policy, facts.capacity, purchases, now)
    return supply, Fleet(supply.serving - supply.imagined, supply.total, supply.total if before is None else before)


def _begin(facts: Facts) -> Draft:
    policy, purchases = facts.policy, facts.own_purchases()
    supply, fleet = standing(facts)
    recheck: tuple[datetime, ...] = ()
    if isinstance(facts.capacity, Capacity):
        recheck = tuple(changes_at(policy, facts.capacity, purchases))
    readings = {reading.check: reading for reading in facts.readings}
    wishes = tuple(
        (check.name, _wish(check, readings.get(check.name), fleet, policy))
        for check in policy.checks
        if not isinstance(check, Schedule)
    )
    return Draft(supply=supply, fleet=fleet, purchases=purchases, wishes=wishes, recheck=recheck)


def _wish(check: Check, reading: CheckReading | None, fleet: Fleet | Gap, policy: Policy) -> Wish | Gap:
    if reading is None:
        return Gap(GapReason.NO_DATA, "it was not read")
    return evaluate(check, reading, fleet, policy.headroom)


def _sentence(draft: Draft, reason: Reason) -> str:
    """One sentence an operator understands: outcome, where the fleet stands, who wants what, and why (not)."""
    where = "" if isinstance(draft.supply, Gap) else f" at {draft.supply.serving}"
    cause = draft.cause or draft.waits_for
    match reason:
        case Reason.NEEDED | Reason.ORDERED:
            shortened = f"; {draft.missing} needed but {draft.limited}" if draft.add < draft.missing else ""
            main = f"scale out by {draft.add}{where}: {cause}{_beside(draft)}{shortened}"
        case Reason.ENOUGH:
            main = f"hold{where}: {cause}{_beside(draft) or _suffices(draft)}"
        case Reason.GAP | Reason.CAPACITY_GAP | Reason.CLOCK:
            wanting = f"; {draft.cause}" if draft.cause else ""
            main = f"hold{where}: {draft.objection}{wanting}"
        case Reason.STABILIZATION:
            main = f"hold{where}: {draft.load}{_beside(draft)}, {draft.objection}"
        case _:
            but = f"would buy {draft.add} but" if draft.add else f"{draft.missing} needed but"
            main = f"{reason.outcome.value}{where}: {cause}{_beside(draft)}, {but} {draft.objection}"
    return main + _notes(draft, main)


def _beside(draft: Draft) -> str:
    if isinstance(draft.supply, Gap) or draft.order is not None:
        return ""
    parts = [f"{draft.supply.in_flight} already in flight"] if draft.supply.in_flight else []
    parts += [f"{draft.supply.lost} just lost"] if draft.supply.lost else []
    parts += [f"{draft.supply.lapsing} about to lapse"] if draft.supply.lapsing else []
    return "".join(f", {part}" for part in parts)


def _suffices(draft: Draft) -> str:
    return "" if draft.wanted is None else ", which is met"


def _notes(draft: Draft, main: str) -> str:
    """What an operator would miss: checks without a reading, a freeze or an unknown purchase behind another reason."""
    notes = [
        f'"{name}" has no reading ({gap.reason}: {gap.detail})'
        for name, gap in draft.wishes
        if isinstance(gap, Gap) and gap is not draft.supply and f'"{name}" has no reading' not in main
    ]
    frozen = [verdict.says for verdict in draft.verdicts if verdict.rule == "freeze" and verdict.says != "none"]
    notes += [text for text in (*frozen, draft.unknown) if text and text not in main]
    return "".join(f"; {note}" for note in notes)


__all__ = [
    "Decision",
    "Evaluation",
    "Facts",
    "Reason",
    "Supply",
    "Verdict",
    "decide",
    "differences",
    "missing",
    "next_runs",
    "recheck_at",
    "standing",
    "withheld",
]
