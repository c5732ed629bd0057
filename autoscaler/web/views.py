"""What the API gives of policies and decisions, typed; the names are those of files, commands and the ledger."""

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Annotated, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter

from autoscaler.budget import Room
from autoscaler.decision import Decision, Evaluation, differences
from autoscaler.duration import format_duration
from autoscaler.facts import Facts, Reason
from autoscaler.model import (
    CheckReading,
    Gap,
    GapReason,
    Outcome,
)
from autoscaler.overview import Need, Standing

_FACTS = TypeAdapter(Facts)


def number(value: Fraction) -> int | float:
    """An exact number as JSON has it."""
    return value.numerator if value.denominator == 1 else float(value)


Number = Annotated[int | float, BeforeValidator(lambda value: number(value) if isinstance(value, Fraction) else value)]
Duration = Annotated[
    str, BeforeValidator(lambda value: format_duration(value) if isinstance(value, timedelta) else value)
]

T = TypeVar("T")


class View(BaseModel):
    """Something shown."""

    model_config = ConfigDict(from_attributes=True)


class Page(View, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = Field(description="Give it as `cursor` for the next page; null: this is the last.")


# --- decisions ---


class SupplyView(View):
    """Where the policy's workers stand, in numbers of workers."""

    serving: int
    in_flight: int
    expected: int
    joining: int
    warming: int
    lost: int
    written_off: int
    lapsing: int
    imagined: int
    paid: int
    total: int
    unhealthy: bool


class GapView(View):
    """Why there is no usable reading."""

    reason: GapReason
    detail: str


class NamedGapView(GapView):
    """Why there is no usable reading of a check, or of the workers (`capacity`)."""

    name: str


class ReadingView(View):
    """What was read for one check; either a value or a gap."""

    check: str
    value: Number | None
    at: datetime | None = Field(description="When its oldest sample was taken; null: not known.")
    gap: GapView | None

    @classmethod
    def of(cls, reading: CheckReading) -> Self:
        load = reading.load
        if isinstance(load, Gap):
            return cls(check=reading.check, value=None, at=None, gap=GapView.model_validate(load))
        return cls(check=reading.check, value=number(load.value), at=load.at, gap=None)


class VerdictView(View):
    """What one rule did to the number of workers to add, and why."""

    rule: str
    add: int
    reason: Reason | None
    says: str


class DecisionView(View):
    """What was decided for a policy, and why."""

    id: int | None = Field(description="Null: it said nothing new and was not kept for itself.")
    policy: str
    cluster_id: str
    at: datetime
    outcome: Outcome
    reason: Reason
    add: int
    order_id: int | None
    demand: Number | None
    wanted: int | None
    supply: SupplyView | None
    gaps: list[NamedGapView]
    verdicts: list[VerdictView]
    sentence: str
    recheck_at: datetime | None

    @classmethod
    def of(cls, decision: Decision, id: int | None = None) -> Self:
        gaps = [NamedGapView(name=name, reason=gap.reason, detail=gap.detail) for name, gap in decision.gaps]
        known = {name: getattr(decision, name) for name in cls.model_fields if name not in ("id", "gaps")}
        return cls(**known, id=id, gaps=gaps)


class ReplayView(View):
    """The decision, decided again from what was known then."""

    same: bool
    differs: list[str] = Field(description="Fields that come out otherwise.")


class WhyView(View):
    """A stored decision with all it rested on."""

    decision: DecisionView
    policy: dict[str, JsonValue] = Field(description="The policy as it was then, with every default.")
    policy_version: str
    inputs: dict[str, JsonValue] = Field(
        description="Readings, capacity, history and overrides as they were; numbers of load are exact, as text."
    )
    replay: ReplayView

    @classmethod
    def of(cls, id: int, evaluation: Evaluation) -> Self:
        policy = evaluation.facts.policy
        differing = list(differences(evaluation))
        return cls(
            decision=DecisionView.of(evaluation.decision, id),
            policy=policy.model_dump(mode="json", exclude_none=True),
            policy_version=policy.version,
            inputs=_FACTS.dump_python(evaluation.facts, mode="json", exclude={"policy"}),
            replay=ReplayView(same=not differing, differs=differing),
        )


# --- policies ---


class AttentionView(View):
    """Why somebody has to look after a policy."""

    need: Need
    says: str


class LapseView(View):
    """Workers whose unrenewed term ends at the same instant."""

    at: datetime
    workers: int


class StandingView(View):
    """Where one policy stands."""

    name: str
    cluster_id: str | None
    description: str
    labels: dict[str, str]
    dry_run: bool | None = Field(description="Null, as other fields of the policy's file: it cannot be read here.")
    version: str | None
    evaluate_every: Duration | None
    attention: list[AttentionView]
    load: str = Field(description="What the checks say.")
    readings: list[ReadingView]
    decision: DecisionView | None = Field(description="The latest; null: it has not been evaluated yet.")
    budgets: str = Field(description="What the tightest budget left at the latest evaluation; empty: it has none.")
    overrides: list[int] = Field(description="Ids of the orders in force for it.")
    purchases: list[int] = Field(description="Ids of its open purchases.")
    lapses: list[LapseView]

    @classmethod
    def of(cls, standing: Standing) -> Self:
        policy, decision = standing.policy, standing.decision
        return cls(
            name=standing.name,
            cluster_id=policy.cluster_id if policy else decision.cluster_id if decision else None,
            description=policy.description if policy else "",
            labels=policy.labels if policy else {},
            dry_run=policy.dry_run if policy else None,
            version=policy.version if policy else None,
            evaluate_every=format_duration(policy.evaluate_every) if policy else None,
            attention=[AttentionView.model_validate(each) for each in standing.attention],
            load=standing.load,
            readings=[ReadingView.of(reading) for reading in standing.readings],
            decision=DecisionView.of(decision) if decision else None,
            budgets=standing.budgets,
            overrides=[order.id for order in standing.overrides],
            purchases=[purchase.id for purchase in standing.purchases],
            lapses=[LapseView.model_validate(lapse) for lapse in standing.lapses],
        )


class RoomView(View):
    """What one budget leaves now."""

    name: str | None = Field(description="Of a shared one.")
    workers: int | None = Field(description="The most workers; null: it bounds money.")
    money: Number | None
    per: Duration
    committed: Number
    leaves: int = Field(description="Workers that may still be bought.")
    changes_at: datetime | None

    @classmethod
    def of(cls, room: Room) -> Self:
        budget = room.budget
        return cls(
            name=budget.shared,
            workers=budget.workers,
            money=None if budget.money is None else number(budget.money),
            per=format_duration(budget.per or timedelta(0)),
            committed=number(room.committed),
            leaves=room.workers,
            changes_at=room.changes_at,
        )


class PolicyView(View):
    """Where one policy stands, what it says, and what its budgets leave."""

    standing: StandingView
    policy: dict[str, JsonValue] | None = Field(description="With every default; null: its file cannot be read here.")
    rooms: list[RoomView]
