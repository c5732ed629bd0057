"""Policies: what one file (or one row of its ``each``) says, as values that decisions are made from.

A policy that exists is one that can be: every rule that needs no other policy holds from its construction on. It is
written as JSON in the form of the file, so what the ledger keeps is what an operator would have typed.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from autoscaler.duration import format_duration
from autoscaler.policy.checks import Check
from autoscaler.policy.fields import (
    HEADROOM_SCHEMA,
    Count,
    Currency,
    Duration,
    Flag,
    Identifier,
    Line,
    NumberFromZero,
    Part,
    PolicyName,
    PositiveCount,
    PositiveDuration,
    PositiveNumber,
    Query,
    Refusal,
    percent_text,
    read_percent,
    shown,
)
from autoscaler.policy.secret import Secret

# The cloud calls a purchase failed at timeout_mins; its workers are then listed a little later still.
_ARRIVAL_MARGIN = timedelta(minutes=15)


class WorkerSpec(Part):
    """What is bought, in the API's own field names; ``count`` and ``is_edge_worker`` are the autoscaler's."""

    worker_instance_type: Identifier = Field(examples=["ens.sn1.tiny"])
    """ENS instance type; at least 2 vCPU and 4 GB."""
    ens_region_id: Identifier = Field(examples=["cn-beijing-telecom"])
    """ENS region the workers stand in."""
    worker_image_id: Identifier = Field(examples=["m-2QVLO2T8NYgm8CNQVg15gF"])
    """Image of the workers."""
    ens_internet_charge_type: Literal["BandwidthByDay", "95BandwidthByMonth"] = Field(examples=["BandwidthByDay"])
    """How traffic is charged; after its first purchase an account keeps its method."""
    worker_period: PositiveCount = Field(examples=[1], json_schema_extra={"enum": [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]})
    """Months paid at once: 1-9 or 12."""
    worker_auto_renew: Flag = False
    """Whether the cloud renews the worker at the end of its term."""
    worker_auto_renew_period: Annotated[int, Field(strict=True, ge=1, le=12)] | None = None
    """Months of each renewal: 1-12, needed with worker_auto_renew."""
    worker_system_disk_size: Annotated[int, Field(strict=True, ge=20, le=100, multiple_of=10)] = Field(examples=[20])
    """GiB: 20-100 in steps of 10."""
    worker_data_disk_size: Annotated[int, Field(strict=True, ge=0, le=200, multiple_of=10)] = 0
    """GiB: 0 for none, or 20-200 in steps of 10."""
    timeout_mins: Annotated[int, Field(strict=True, ge=1, le=1440)] = 60
    """Minutes after which the cloud gives a purchase up."""
    login_password: Secret = Field(examples=["{env: EDGE_LOGIN_PASSWORD}"])
    """Where the workers' password is found; never the password itself."""

    @field_validator("worker_period")
    @classmethod
    def _sold_period(cls, months: int) -> int:
        if months not in {*range(1, 10), 12}:
            raise Refusal(f"{months} months are not sold", "write 1 to 9, or 12")
        return months

    @field_validator("worker_auto_renew_period")
    @classmethod
    def _renewal_has_a_period(cls, months: int | None, info: ValidationInfo) -> int | None:
        if months is None and info.data.get("worker_auto_renew"):
            raise Refusal("is missing, and worker_auto_renew is true", "add worker_auto_renew_period: 1")
        return months

    @field_validator("worker_data_disk_size")
    @classmethod
    def _sold_disk(cls, size: int) -> int:
        if size == 10:
            raise Refusal("10 GiB are not sold", "write 0 for no data disk, or 20 to 200 in steps of 10")
        return size


class CapacityQuery(Part):
    """How workers that carry load are counted."""

    query: Query | None = None
    """PromQL that gives the number of serving workers; left out, the cloud's node list is counted."""


class Budget(Part):
    """Most workers, or money, committed in a rolling window."""

    workers: PositiveCount | None = None
    """Most workers."""
    money: PositiveNumber | None = None
    """Most money, in the policy's currency; renewals falling into the window count too."""
    per: PositiveDuration | None = None
    """Length of the window."""
    shared: Line | None = None
    """Name of the budget in _shared.yaml; its numbers are filled in from there."""

    @model_validator(mode="after")
    def _limits_one_thing(self) -> Self:
        if self.workers is None and self.money is None:
            raise Refusal("limits neither workers nor money", "give it workers or money with per, or shared alone")
        if self.workers is not None and self.money is not None:
            raise Refusal("limits both workers and money", "make two budgets of it")
        if self.per is None:
            raise Refusal("has no window", "add per, like per: 24h")
        return self


class Limits(Part):
    """What bounds every purchase of the policy, of rules and of people."""

    minimum: Count = 0
    """Workers to have whatever the load."""
    maximum: Count = Field(examples=[40])
    """Most workers that exist or are asked for, lost ones too."""
    per_action: PositiveCount = Field(examples=[5])
    """Most workers one purchase may add."""
    budgets: tuple[Budget, ...] = ()
    """Most workers, or money, in rolling windows."""

    @field_validator("maximum")
    @classmethod
    def _above_minimum(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("minimum", 0):
            raise Refusal(
                f"{maximum} is below minimum {info.data['minimum']}", "raise limits.maximum, or lower limits.minimum"
            )
        return maximum


class Headroom(Part):
    """Workers wanted beyond the load: a ratio of them, or a number."""

    ratio: NumberFromZero = Fraction(0)
    """Part of the demand: 1/10 of ``10%``."""
    workers: Count = 0
    """Whole workers."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.ratio and self.workers:
            raise Refusal("has both a ratio and workers", "keep one of them")
        return self


def _headroom(value: object) -> Headroom:
    if isinstance(value, Headroom):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return Headroom(workers=value)
    ratio = read_percent(value) if isinstance(value, str) else None
    if ratio is None:
        raise Refusal(f"{shown(value)} is neither workers nor a percentage", "write a whole number, or 10%")
    return Headroom(ratio=ratio)


def _headroom_form(headroom: Headroom) -> str | int:
    return headroom.workers or (percent_text(headroom.ratio) if headroom.ratio else 0)


class Policy(Part):
    """One autoscaled group of edge workers: what to buy, by which load, within which limits."""

    name: PolicyName
    description: str = ""
    """What it is for, in words."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels for people and pages."""
    cluster_id: Identifier = Field(examples=["Cccfd68c474454665ace07efce924ab12"])
    """The ACK Edge cluster that workers are bought for."""
    dry_run: Flag = True
    """Whether purchases are only imagined; false buys."""
    evaluate_every: PositiveDuration = timedelta(seconds=30)
    """Time between evaluations, at least 1s."""
    worker: WorkerSpec
    """What is bought, in the API's own field names."""
    price_per_worker_month: PositiveNumber | None = None
    """Price of a worker for a month; needed by a budget in money."""
    currency: Currency | None = None
    """Currency of the price and of budgets in money."""
    capacity: CapacityQuery = CapacityQuery()
    """How serving workers are counted."""
    checks: tuple[Check, ...] = ()
    """Loads to watch; the largest demand counts."""
    limits: Limits
    """What bounds every purchase."""
    headroom: Annotated[
        Headroom,
        PlainValidator(_headroom),
        PlainSerializer(_headroom_form, when_used="json"),
        WithJsonSchema(HEADROOM_SCHEMA),
    ] = Headroom()
    """Workers beyond the demand of setpoint and per_worker: a percentage, or whole workers."""
    cooldown: Duration = timedelta(minutes=10)
    """After a purchase is sent, none for this long."""
    stabilization_window: Duration = timedelta(0)
    """Buy only the smallest demand seen throughout it."""
    warm_up: Duration = timedelta(minutes=3)
    """From ready to useful; until then a worker is in flight."""
    replace_after: Duration = timedelta(minutes=30)
    """A worker lost for longer is replaced."""
    replace_before: Duration = timedelta(hours=1)
    """A worker whose unrenewed term ends sooner is replaced."""
    provision_timeout: PositiveDuration = Field(
        default_factory=lambda data: timedelta(minutes=data["worker"].timeout_mins + 30)
    )
    """After it, what has not arrived is no longer expected; default timeout_mins + 30m."""
    assumed_join: Duration = timedelta(minutes=10)
    """How long workers take to join, for dry runs and advice."""
    settle_unknown: Literal["person", "after_quiet_period"] = "person"
    """Who settles a purchase of unknown outcome."""
    prometheus: Line = "default"
    """Name of the Prometheus server to ask."""

    @cached_property
    def version(self) -> str:
        """Twelve hex digits that differ when anything the policy says differs; the same in every process."""
        form = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(form.encode()).hexdigest()[:12]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with ``update`` in place; its version is its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("version", None)
        return copied

    @field_validator("evaluate_every")
    @classmethod
    def _not_too_often(cls, period: timedelta) -> timedelta:
        if period < timedelta(seconds=1):
            raise Refusal(f"{format_duration(period)} is too often", "write 1s or more; 30s suits most")
        return period

    @field_validator("checks")
    @classmethod
    def _names_differ(cls, checks: tuple[Check, ...]) -> tuple[Check, ...]:
        names = [check.name for check in checks]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise Refusal(f"{shown(name)} is the name of two checks", "give each its own", (index, "name"))
        return checks

    @field_validator("limits")
    @classmethod
    def _money_has_a_price(cls, limits: Limits, info: ValidationInfo) -> Limits:
        if "price_per_worker_month" in info.data and info.data["price_per_worker_month"] is None:
            for index, budget in enumerate(limits.budgets):
                if budget.money is not None:
                    raise Refusal(
                        "limits money, and the policy names no price",
                        "add price_per_worker_month and currency",
                        ("budgets", index),
                    )
        return limits

    @field_validator("stabilization_window")
    @classmethod
    def _window_sees_two_evaluations(cls, window: timedelta, info: ValidationInfo) -> timedelta:
        period = info.data.get("evaluate_every")
        if period is not None and timedelta(0) < window < period:
            raise Refusal(
                f"{format_duration(window)} is shorter than evaluate_every, {format_duration(period)}",
                f"write 0s, or {format_duration(period)} or more",
            )
        return window

    @field_validator("provision_timeout")
    @classmethod
    def _outlasts_the_cloud(cls, timeout: timedelta, info: ValidationInfo) -> timedelta:
        worker = info.data.get("worker")
        if worker is not None:
            least = timedelta(minutes=worker.timeout_mins) + _ARRIVAL_MARGIN
            if timeout < least:
                raise Refusal(
                    f"{format_duration(timeout)} leaves the cloud's own timeout_mins, {worker.timeout_mins}, no margin",
                    f"write {format_duration(least)} or more",
                )
        return timeout
