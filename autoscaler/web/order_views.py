"""What the API gives of orders and purchases, typed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import Field

from autoscaler.budget import money_of
from autoscaler.model import Override, OverrideKind, Purchase, PurchaseState, RefusalClass
from autoscaler.orders import Placed, Preview, Progress
from autoscaler.purchase import quiet_at
from autoscaler.web.views import Number, View, number

# --- overrides ---


class ProgressView(View):
    """How far an order to buy is for one policy."""

    policy: str
    done: int
    workers: int


class OverrideView(View):
    """An on-call order."""

    id: int
    kind: OverrideKind
    policies: list[str]
    workers: int | None
    author: str
    reason: str
    starts_at: datetime
    ends_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    ended_reason: str | None
    active: bool
    progress: list[ProgressView] = Field(description="Of an order to buy.")

    @classmethod
    def of(cls, override: Override, now: datetime, progress: Iterable[Progress] = ()) -> Self:
        computed = ("active", "progress")
        known = {name: getattr(override, name) for name in cls.model_fields if name not in computed}
        return cls(**known, active=override.active(now), progress=[ProgressView.model_validate(p) for p in progress])


class EffectView(View):
    """What an order would do to one policy now."""

    policy: str
    imagined: bool | None = Field(description="It is a dry run's; null: the policy's file cannot be read here.")
    workers: int
    money: Number | None
    currency: str | None
    says: str
    waits: list[str] = Field(description="What would hold it back now.")


class MoneyView(View):
    """A sum of money."""

    currency: str
    amount: Number


class PreviewView(View):
    """An order that was not recorded, and what it would do now."""

    policies: list[str] = Field(description="Names and globs that it would be recorded for.")
    ends_at: datetime
    effects: list[EffectView]
    workers: int = Field(description="That it would have bought by and by.")
    imagined: int = Field(description="Workers that dry runs would imagine by and by.")
    money: list[MoneyView] = Field(description="What those cost at once, where policies name a price.")

    @classmethod
    def of(cls, preview: Preview) -> Self:
        return cls(
            policies=list(preview.override.policies),
            ends_at=preview.override.ends_at,
            effects=[EffectView.model_validate(effect) for effect in preview.effects],
            workers=preview.workers,
            imagined=preview.imagined,
            money=[MoneyView(currency=currency, amount=number(sum_)) for currency, sum_ in preview.money],
        )


class PlacedView(View):
    """An order that was recorded, and what there is to say about it."""

    override: OverrideView
    effects: list[EffectView]
    notes: list[str] = Field(description="What was sent before it, and what holds it back.")

    @classmethod
    def of(cls, placed: Placed, now: datetime) -> Self:
        effects = [EffectView.model_validate(effect) for effect in placed.effects]
        return cls(override=OverrideView.of(placed.override, now), effects=effects, notes=list(placed.notes))


# --- purchases ---


class PurchaseView(View):
    """One ScaleOutCluster call, and what is known of its fate."""

    id: int
    policy: str
    policy_version: str
    cluster_id: str
    state: PurchaseState
    imagined: bool
    asked: int
    arrived: int
    failed: int
    outstanding: int
    money: Number | None
    currency: str | None
    order_id: int | None
    task_id: str | None
    request_id: str | None
    refusal: RefusalClass | None
    code: str | None
    message: str | None
    reserved_at: datetime
    sent_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    not_bought_from: datetime | None = Field(
        description="Of unknown outcome: from when on it may be said that nothing was bought."
    )

    @classmethod
    def of(cls, purchase: Purchase) -> Self:
        unknown = purchase.state is PurchaseState.UNKNOWN
        computed = {
            "money": money_of(purchase),
            "currency": purchase.terms.currency,
            "not_bought_from": quiet_at(purchase) if unknown else None,
        }
        known = {name: getattr(purchase, name) for name in cls.model_fields if name not in computed}
        return cls.model_validate(known | computed)


class EventView(View):
    """One step of a purchase."""

    at: datetime
    before: PurchaseState | None
    after: PurchaseState
    what: str
    author: str | None = Field(description="Null: the daemon.")


class ArrivalView(View):
    """A worker that a purchase brought."""

    instance_id: str
    at: datetime
    gone_at: datetime | None


class PurchaseDetailView(View):
    """A purchase with all that happened to it."""

    purchase: PurchaseView
    events: list[EventView]
    arrivals: list[ArrivalView]
