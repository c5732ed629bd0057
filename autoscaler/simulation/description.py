"""What a policy test says: the schema of a test file's parts, judged in the manner of policy files."""

from datetime import datetime, timedelta
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, field_validator, model_validator

from autoscaler.facts import Reason
from autoscaler.model import GapReason, OverrideKind, RefusalClass
from autoscaler.policy.fields import (
    Count,
    Duration,
    Line,
    Part,
    PositiveCount,
    PositiveDuration,
    Refusal,
    decimal_text,
    shown,
)
from autoscaler.simulation.grid import MOST_WORKERS
from autoscaler.simulation.market import Fate
from autoscaler.simulation.notation import Value, read_series


def _series(value: object) -> tuple[Value, ...]:
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        value = decimal_text(Fraction(value))
    if not isinstance(value, str):
        raise Refusal(f"{shown(value)} is not a series", 'write it in quotes, like "4000+100x20 _x3 5873x10"')
    values, slips = read_series(value)
    if slips:
        what = "; ".join(f"character {slip.column}: {slip.what}" for slip in slips)
        raise Refusal(what, slips[0].mend)
    return values


def _instant(value: object) -> datetime:
    mend = "write it with its zone, like 2026-06-01T18:00:00+08:00"
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None:
        raise Refusal(f"{shown(value)} is not an instant", mend)
    if at.tzinfo is None:
        raise Refusal(f"{shown(value)} has no time zone", mend)
    if not 1970 <= at.year <= 5000:
        raise Refusal(f"{shown(value)} is not of our age", "write a year from 1970 to 5000")
    return at


Series = Annotated[tuple[Value, ...], PlainValidator(_series)]
Instant = Annotated[datetime, PlainValidator(_instant)]
OutcomeName = Literal["scale_out", "blocked", "hold"]


_Word = type[Reason] | type[GapReason] | type[Fate] | type[RefusalClass]


def _word_for(noun: str, words: _Word) -> Any:
    """A text that is one of an enum's, as that member."""

    def read(value: object) -> Any:
        names = [word.value for word in words]
        if value is None or value in names:
            return None if value is None else words(value)
        near = get_close_matches(str(value), names, n=1)
        raise Refusal(f"{shown(value)} is not {noun}", f"write {near[0] if near else ' or '.join(names)}")

    return PlainValidator(read)


class FaultRow(Part):
    """One thing that goes wrong: exactly one of purchase, gap, nodes, lost and cluster."""

    at: Duration = Field(examples=["5m"])
    """When, from the start."""
    lasts: PositiveDuration | None = None
    """For how long; left out, until the test ends."""
    purchase: Annotated[Fate | None, _word_for("a fate of purchases", Fate)] = None
    """What becomes of the next purchase."""
    arrive: Count = 0
    """With ``purchase: partial``, workers that come."""
    refusal: Annotated[RefusalClass, _word_for("a class of refusals", RefusalClass)] = RefusalClass.LATER
    """With ``purchase: refused``, what the refusal waits for."""
    gap: Annotated[GapReason | None, _word_for("a reason of gaps", GapReason)] = None
    """Why checks have no reading."""
    check: str | None = None
    """With ``gap``, the check; left out, all of them and the capacity query."""
    nodes: Annotated[GapReason | None, _word_for("a reason of gaps", GapReason)] = None
    """Why the node list cannot be had."""
    lost: PositiveCount | None = None
    """Workers that stop being ready."""
    cluster: Line | None = None
    """State of the cluster; ``foreign`` is a scale-out by somebody else."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        kinds = ("purchase", "gap", "nodes", "lost", "cluster")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            what = f"says {' and '.join(given)}" if given else "does not say what goes wrong"
            raise Refusal(what, f"give it one of {', '.join(kinds)}")
        for key, kind in (("check", "gap"), ("arrive", "purchase"), ("refusal", "purchase")):
            if key in self.model_fields_set and given != [kind]:
                raise Refusal(f"goes with {kind} alone", "remove it", (key,))
        if self.purchase is not None and self.lasts is not None:
            raise Refusal("is not for a purchase, which is met once", "remove it", ("lasts",))
        return self


class OverrideRow(Part):
    """One order of a person."""

    at: Duration = timedelta(0)
    """When it begins, from the start."""
    kind: Literal["freeze", "floor", "cap", "buy"]
    """What is ordered."""
    workers: Count | None = None
    """Workers of floor, cap and buy."""
    lasts: PositiveDuration = timedelta(days=1)
    """How long it holds."""
    author: Line = "somebody"
    """Who orders it."""
    reason: Line = "a test"
    """Why."""

    @field_validator("workers")
    @classmethod
    def _fit_the_kind(cls, workers: int | None, info: ValidationInfo) -> int | None:
        freezes = info.data.get("kind") == OverrideKind.FREEZE.value
        if freezes and workers is not None:
            raise Refusal("is not for a freeze", "remove it")
        if workers is None and not freezes and "kind" in info.data:
            raise Refusal("is missing", "add it, like workers: 8")
        return workers


class Expectation(Part):
    """What one evaluation has to come to."""

    at: Duration = Field(examples=["3m"])
    """Which evaluation, from the start: the newest up to it."""
    outcome: OutcomeName | None = None
    """What it comes to."""
    reason: Annotated[Reason | None, _word_for("a reason of decisions", Reason)] = None
    """Why."""
    add: Count | None = None
    """Workers bought then."""
    wanted: Count | None = None
    """Workers wanted, rounded up."""
    serving: Count | None = None
    """Workers that carry load."""
    in_flight: Count | None = None
    """Workers asked for and not yet serving."""
    paid: Count | None = None
    """Workers that exist or were asked for."""
    says: str | None = None
    """A part of the decision's sentence."""

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if self.model_fields_set == {"at"}:
            raise Refusal("expects nothing", "add outcome, reason, add or another of them")
        return self


def _in_order(rows: tuple[Expectation, ...]) -> tuple[Expectation, ...]:
    for index in range(1, len(rows)):
        if rows[index].at < rows[index - 1].at:
            raise Refusal("comes before the one above it", "order them by their time", (index, "at"))
    return rows


class Description(Part):
    """One policy test, as written."""

    name: Line | None = None
    """What it shows, as a sentence."""
    policy: str = Field(examples=["edge-beijing"])
    """Name of a policy in the folder above, or the path of a file from here."""
    start: Instant = Field(examples=["2026-06-01T18:00:00+08:00"])
    """Instant of the first evaluation."""
    ready: Annotated[int, Field(strict=True, ge=0, le=MOST_WORKERS)] = 0
    """Workers that serve at the start."""
    series: dict[str, Series] = Field(default_factory=dict)
    """What each check reads, evaluation by evaluation."""
    join: PositiveDuration | None = None
    """How long a purchase takes to arrive; left out, the policy's assumed_join."""
    lapsing: tuple[PositiveDuration, ...] = ()
    """When terms of workers there at the start end without renewal, from the start."""
    node_quota: PositiveCount | None = None
    """Most nodes the cluster may have."""
    faults: tuple[FaultRow, ...] = ()
    """What goes wrong, and when."""
    overrides: tuple[OverrideRow, ...] = ()
    """Orders of people."""
    expect: Annotated[tuple[Expectation, ...], AfterValidator(_in_order)] = ()
    """What evaluations have to come to."""
    bought: Count | None = None
    """Workers asked for until the end, without those refused."""

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if not self.expect and self.bought is None:
            raise Refusal("expects nothing", "add expect or bought")
        return self

    @property
    def lasts(self) -> timedelta:
        """From the start to the last instant that it names by itself."""
        return max((row.at for row in self.expect), default=timedelta(0))
