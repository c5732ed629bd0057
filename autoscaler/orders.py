"""Orders: what people on call say, from whichever surface, previewed, recorded once and answered.

The command line, the API and the page all pass here. An order is only ever recorded; the next evaluation obeys it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Protocol

from autoscaler.decision import Decision
from autoscaler.effects import Effect, effect_of
from autoscaler.model import History, Override, OverrideKind, Purchase, PurchaseState
from autoscaler.override import (
    LONGEST,
    Asked,
    OrderKey,
    OrderRefused,
    in_one_line,
    judge,
    key_of,
    matched,
    word_problems,
)
from autoscaler.policy import Policy
from autoscaler.purchase import (
    OPEN,
    CannotSettle,
    done_of_order,
    retried,
    settled_bought,
    settled_not_bought,
)

RETIRED_AFTER = timedelta(days=1)
"""A policy is evaluated every few seconds or minutes: one that was not for a day was taken out."""

_BUYING = frozenset({OverrideKind.BUY, OverrideKind.FLOOR})


class Ledger(Protocol):
    """Where orders and purchases are kept."""

    def now(self) -> datetime: ...

    def latest(self) -> Mapping[str, Decision]: ...

    def histories(self, policies: Sequence[Policy], now: datetime) -> Mapping[str, History]: ...

    def overrides(self, now: datetime) -> tuple[Override, ...]: ...

    def override(self, id: int) -> Override: ...

    def add_override(
        self,
        kind: OverrideKind,
        policies: Sequence[str],
        workers: int | None,
        author: str,
        reason: str,
        starts_at: datetime,
        ends_at: datetime,
        key: OrderKey | None = None,
    ) -> Override: ...

    def end_override(self, id: int, author: str, reason: str, at: datetime) -> Override: ...

    def purchases(
        self,
        *,
        states: Collection[PurchaseState] | None = None,
        orders: Collection[int] | None = None,
        limit: int | None = 50,
    ) -> tuple[Purchase, ...]: ...

    def purchase_events(self, id: int) -> Sequence["PurchaseEvent"]: ...

    def change(
        self, purchase_id: int, next: Callable[[Purchase], Purchase], at: datetime, what: str, author: str | None = None
    ) -> Purchase: ...


class PurchaseEvent(Protocol):
    """One step of a purchase."""

    @property
    def what(self) -> str: ...

    @property
    def author(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Preview:
    """An order as it would be recorded, with what it would do now."""

    override: Override  # its id is 0
    effects: tuple[Effect, ...]  # by policy

    @property
    def workers(self) -> int:
        """Workers it would have bought by and by, of all policies together but for dry runs."""
        return sum(effect.workers for effect in self.effects if not effect.imagined)

    @property
    def imagined(self) -> int:
        """Workers that dry runs would imagine by and by."""
        return sum(effect.workers for effect in self.effects if effect.imagined)

    @property
    def money(self) -> tuple[tuple[str, Fraction], ...]:
        """What the workers cost at once: a sum for each currency, of the policies that name a price."""
        sums: dict[str, Fraction] = {}
        for effect in self.effects:
            if effect.money and not effect.imagined:
                currency = effect.currency or ""
                sums[currency] = sums.get(currency, Fraction(0)) + effect.money
        return tuple(sorted(sums.items()))


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that was recorded, and what there is to say about it."""

    override: Override
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]  # "purchase 42 was already sent", "edge waits: purchase 41 is unknown"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a buy order is for one policy."""

    policy: str
    done: int  # workers that its purchases brought or may still bring; unknown ones count
    workers: int


class Orders:
    """Takes orders of people. Raises, beside what it says, what the ledger raises; NotFound is its own."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        policies: Callable[[], Sequence[Policy]],
        clock: Callable[[], datetime],
        longest: timedelta = LONGEST,
    ) -> None:
        """``policies`` gives those in force; ``longest`` is how long an order may hold."""
        self._ledger = ledger
        self._policies = policies
        self._clock = clock
        self._longest = longest

    def preview(self, asked: Asked) -> Preview:
        """What was asked, as it would be recorded, and what it would do now. Raises OrderRefused."""
        now = self._now()
        latest = self._latest(now)
        override = self._judged(asked, latest, now)
        return Preview(override, self._effects(override, latest, now))

    def place(self, asked: Asked, key: str | None = None) -> Placed:
        """Record an order, once for each ``key`` of its author within 24 h. Raises OrderRefused, KeyReused."""
        now = self._now()
        latest = self._latest(now)
        order = self._judged(asked, latest, now)
        placed = self._ledger.add_override(
            order.kind,
            order.policies,
            order.workers,
            order.author,
            order.reason,
            order.starts_at,
            order.ends_at,
            key=None if key is None else key_of(asked, key),
        )
        effects = self._effects(placed, latest, now)
        return Placed(placed, effects, tuple(self._notes(placed, effects)))

    def end(self, override_id: int, author: str, reason: str) -> Override:
        """End an order early; it stays in the history. The first end wins. Raises OrderRefused."""
        author, reason = _said(author, reason)
        return self._ledger.end_override(override_id, author, reason, self._clock())

    def settle(self, purchase_id: int, bought: int | None, author: str, reason: str) -> Purchase:
        """Say what became of a purchase of unknown outcome: so many workers were bought, or none (None).

        Raises OrderRefused, CannotSettle, TooEarly. Said again by the same author in the same words it stays said.
        """
        author, reason = _said(author, reason)
        now = self._clock()
        if bought is None:
            now = min(now, self._ledger.now())  # a clock that is ahead here must not make a young purchase old enough
            return self._say(purchase_id, partial(settled_not_bought, now=now), now, f"not bought: {reason}", author)
        said = partial(settled_bought, bought=bought, now=now)
        return self._say(purchase_id, said, now, f"bought {bought}: {reason}", author)

    def retry(self, purchase_id: int, author: str, reason: str) -> Purchase:
        """Say that what a purchase was refused for is mended. Raises as ``settle``."""
        author, reason = _said(author, reason)
        now = self._clock()
        return self._say(purchase_id, partial(retried, now=now), now, f"may be tried again: {reason}", author)

    def _now(self) -> datetime:
        """When an order is given: by a clock that is behind, one for half an hour may be over before it is obeyed."""
        return max(self._clock(), self._ledger.now())

    def _say(
        self, purchase_id: int, said: Callable[[Purchase], Purchase], now: datetime, what: str, author: str
    ) -> Purchase:
        try:
            return self._ledger.change(purchase_id, said, now, what, author)
        except CannotSettle:
            events = self._ledger.purchase_events(purchase_id)
            if events and (events[-1].what, events[-1].author) == (what, author):
                return self._ledger.change(purchase_id, lambda purchase: purchase, now, what, author)
            raise

    def _latest(self, now: datetime) -> dict[str, Decision]:
        """The latest decisions of policies that are still evaluated, and of all that are in force."""
        in_force = {policy.name for policy in self._policies()}
        return {
            name: decision
            for name, decision in self._ledger.latest().items()
            if name in in_force or now - decision.at < RETIRED_AFTER
        }

    def _judged(self, asked: Asked, latest: Mapping[str, Decision], now: datetime) -> Override:
        known: dict[str, Mapping[str, str]] = {name: {} for name in latest}
        known |= {policy.name: policy.labels for policy in self._policies()}
        return judge(asked, known, now, self._longest)

    def _effects(self, order: Override, latest: Mapping[str, Decision], now: datetime) -> tuple[Effect, ...]:
        policies = {policy.name: policy for policy in self._policies()}
        names = matched(order, latest.keys() | policies.keys())
        # What was bought in years is read only for what buys: a freeze of everything must be quick.
        buying = [policies[name] for name in names if name in policies] if order.kind in _BUYING else []
        histories = self._ledger.histories(buying, now)
        others = tuple(other for other in self._ledger.overrides(now) if other.id != order.id)
        return tuple(
            effect_of(
                order,
                name,
                policies.get(name),
                latest.get(name),
                histories.get(name, History()),
                tuple(other for other in others if other.names(name)),
                now,
            )
            for name in names
        )

    def _notes(self, order: Override, effects: Sequence[Effect]) -> Iterator[str]:
        if order.kind is OverrideKind.FREEZE:
            # Read after the order was recorded: what is reserved and not yet claimed by now will not be sent.
            for purchase in reversed(self._ledger.purchases(states=OPEN, limit=None)):
                if order.names(purchase.policy) and not purchase.imagined:
                    yield _of_frozen(purchase)
        for effect in effects:
            for why in effect.waits:
                yield f"{effect.policy} waits: {why}"


class Purchases(Protocol):
    """What tells how far an order is."""

    def purchases(self, *, orders: Collection[int] | None = None, limit: int | None = 50) -> tuple[Purchase, ...]: ...


def progress(ledger: Purchases, overrides: Sequence[Override]) -> Mapping[int, tuple[Progress, ...]]:
    """How far each buy order among ``overrides`` is, by its id, for each policy it names."""
    buys = {order.id: order for order in overrides if order.kind is OverrideKind.BUY}
    bought = ledger.purchases(orders=buys.keys(), limit=None) if buys else ()
    return {
        id: tuple(
            Progress(name, done_of_order(id, [p for p in bought if p.policy == name]), order.workers or 0)
            for name in order.policies
        )
        for id, order in buys.items()
    }


def _said(author: str, reason: str) -> tuple[str, str]:
    problems = tuple(word_problems(author, reason))
    if problems:
        raise OrderRefused(problems)
    return author.strip(), in_one_line(reason)


def _of_frozen(purchase: Purchase) -> str:
    what = f"purchase {purchase.id} of {purchase.asked} for {purchase.policy}"
    match purchase.state:
        case PurchaseState.INTENDED:
            return f"{what} was reserved and is not sent any more"
        case PurchaseState.UNKNOWN:
            return f"{what} was already sent, and its outcome is unknown"
        case _:
            return f"{what} was already sent, {purchase.arrived} arrived"
