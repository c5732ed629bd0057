"""Checks: one load query and one strategy each, and the schedule that needs no query."""

import difflib
import zoneinfo
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Annotated, Literal, Self

from cronsim import CronSim, CronSimError
from pydantic import Field, ValidationInfo, field_validator, model_validator

from autoscaler import promql
from autoscaler.policy.fields import (
    Duration,
    DurationOrNone,
    Flag,
    Line,
    NumberFromZero,
    Part,
    PositiveCount,
    PositiveDuration,
    PositiveNumber,
    Query,
    Refusal,
    shown,
)


class _Queried(Part):
    name: Line = Field(examples=["sessions"])
    """What sentences and pages call this check."""
    query: Query = Field(examples=["sum(live_sessions)"])
    """PromQL that gives one number at an instant."""
    max_age: DurationOrNone = timedelta(minutes=2)
    """Oldest sample a reading may rest on; none switches the test off."""
    required: Flag = False
    """Whether a gap of this check holds the demand of all."""

    @field_validator("max_age")
    @classmethod
    def _age_can_be_known(cls, max_age: timedelta | None, info: ValidationInfo) -> timedelta | None:
        _refuse_pinned(info.data.get("query"), max_age, ("query",))
        return max_age


def _refuse_pinned(query: str | None, max_age: timedelta | None, sibling: tuple[str, ...] = ()) -> None:
    if query is not None and max_age is not None and promql.pins_time(query):
        raise Refusal(
            "is pinned to a time by @, so the age of its reading cannot be known",
            "take the @ out, or set max_age: none",
            sibling,
            beside=bool(sibling),
        )


class Setpoint(_Queried):
    """Keeps a mean, such as utilization, at a target."""

    strategy: Literal["setpoint"]
    """Keep the mean that the query gives at ``target``."""
    over: Query | None = None
    """PromQL that counts the workers the mean covers; left out, the serving ones."""
    target: PositiveNumber = Field(examples=[0.65])
    """The mean to keep, in the query's unit."""
    tolerance: NumberFromZero = Fraction(0)
    """Ratio above the target that is still left alone."""

    @field_validator("over")
    @classmethod
    def _age_of_over_can_be_known(cls, over: str | None, info: ValidationInfo) -> str | None:
        _refuse_pinned(over, info.data.get("max_age"))
        return over


class PerWorker(_Queried):
    """Divides a load by what one worker carries."""

    strategy: Literal["per_worker"]
    """Divide the load that the query gives by ``load_per_worker``."""
    load_per_worker: PositiveNumber = Field(examples=[400])
    """Load one worker carries, in the query's unit."""


class Step(Part):
    """What to add once a value is reached: exactly one of ``add`` and ``add_percent``."""

    at: PositiveNumber = Field(examples=[100])
    """Value from which the step counts."""
    add: PositiveCount | None = None
    """Workers to add."""
    add_percent: PositiveNumber | None = None
    """Workers to add, as percent of the supply."""

    @model_validator(mode="after")
    def _adds_one_way(self) -> Self:
        if self.add is None and self.add_percent is None:
            raise Refusal("adds nothing", "give it add (workers) or add_percent")
        if self.add is not None and self.add_percent is not None:
            raise Refusal("has both add and add_percent", "keep one of them")
        return self


class Steps(_Queried):
    """Adds workers by thresholds of a value."""

    strategy: Literal["steps"]
    """Add workers by the highest step that the value reaches."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)] = Field(examples=["[{at: 100, add: 1}]"])
    """Steps, the lowest first."""

    @field_validator("steps")
    @classmethod
    def _rise(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for index in range(1, len(steps)):
            if steps[index].at <= steps[index - 1].at:
                raise Refusal("is not above the step before", "order the steps by rising at", (index, "at"))
        return steps


class Window(Part):
    """A time in which a number of workers is wanted whatever the load."""

    cron: Line = Field(examples=['"0 18 * * *"'])
    """When it opens: minute, hour, day, month, weekday (0 or 7 is Sunday)."""
    lasts: PositiveDuration = Field(examples=["6h"])
    """How long it stays open."""
    workers: PositiveCount = Field(examples=[12])
    """Workers wanted in it."""
    timezone: str = "UTC"
    """Zone of the clock that cron reads, like Asia/Shanghai."""
    lead: Duration = timedelta(0)
    """How long before it opens buying begins."""

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str) -> str:
        mend = 'write five fields: minute hour day month weekday, like "0 18 * * MON-FRI"'
        if len(cron.split()) != 5:
            raise Refusal(f"{shown(cron)} has {len(cron.split())} fields", mend)
        try:
            next(CronSim(cron, datetime(2000, 1, 1)))
        except (CronSimError, StopIteration) as error:
            raise Refusal(f"{shown(cron)} never opens: {str(error).lower() or 'no such day'}", mend) from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        try:
            zoneinfo.ZoneInfo(zone)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            near = difflib.get_close_matches(zone, zoneinfo.available_timezones(), n=1) or ["Asia/Shanghai"]
            raise Refusal(f"{shown(zone)} is not a known time zone", f"write {near[0]}") from None
        return zone


class Schedule(Part):
    """Wants workers by the clock."""

    name: Line = Field(examples=["evening"])
    """What sentences and pages call this check."""
    strategy: Literal["schedule"]
    """Want a number of workers while a window is open."""
    windows: Annotated[tuple[Window, ...], Field(min_length=1)] = Field(
        examples=['[{cron: "0 18 * * *", lasts: 6h, workers: 12}]']
    )
    """Times in which workers are wanted."""


Check = Annotated[Setpoint | PerWorker | Steps | Schedule, Field(discriminator="strategy")]
