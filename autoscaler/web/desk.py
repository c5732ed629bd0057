"""What the API and the page are given by whoever builds them, as small Protocols."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from autoscaler.decision import Decision, Evaluation
from autoscaler.model import History, Override, Purchase, PurchaseState
from autoscaler.orders import Placed, Preview, Progress
from autoscaler.override import Asked
from autoscaler.overview import Overview
from autoscaler.policy import Policy
from autoscaler.supply import Supply
from autoscaler.web.access import Access


class StoredDecision(Protocol):
    """A decision that was news, by its number."""

    @property
    def id(self) -> int: ...

    @property
    def decision(self) -> Decision: ...


class Sample(Protocol):
    """The last evaluation of one minute, in the numbers a chart needs."""

    @property
    def at(self) -> datetime: ...

    @property
    def wanted(self) -> int | None: ...

    @property
    def supply(self) -> Supply | None: ...


class Event(Protocol):
    """One step of a purchase."""

    @property
    def at(self) -> datetime: ...

    @property
    def before(self) -> PurchaseState | None: ...

    @property
    def after(self) -> PurchaseState: ...

    @property
    def what(self) -> str: ...

    @property
    def author(self) -> str | None: ...


class Reads(Protocol):
    """The ledger, to look at."""

    def histories(self, policies: Sequence[Policy], now: datetime) -> Mapping[str, History]: ...

    def decisions(
        self, *, policy: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> Sequence[StoredDecision]: ...

    def evaluation(self, decision_id: int) -> Evaluation | None: ...

    def decision_of(self, purchase_id: int) -> int | None: ...

    def samples(self, policy: str, since: datetime) -> Sequence[Sample]: ...

    def purchase(self, id: int) -> Purchase | None: ...

    def purchases(
        self,
        *,
        policy: str | None = None,
        states: Collection[PurchaseState] | None = None,
        orders: Collection[int] | None = None,
        before_id: int | None = None,
        limit: int | None = 50,
    ) -> tuple[Purchase, ...]: ...

    def purchase_events(self, id: int) -> Sequence[Event]: ...

    def override(self, id: int) -> Override: ...

    def override_history(self, *, before_id: int | None = None, limit: int = 50) -> tuple[Override, ...]: ...


class Orders(Protocol):
    """Where orders go; ``autoscaler.orders`` says what each raises."""

    def preview(self, asked: Asked) -> Preview: ...

    def place(self, asked: Asked, key: str | None = None) -> Placed: ...

    def end(self, override_id: int, author: str, reason: str) -> Override: ...

    def settle(self, purchase_id: int, bought: int | None, author: str, reason: str) -> Purchase: ...

    def retry(self, purchase_id: int, author: str, reason: str) -> Purchase: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """All that people on call are served from."""

    reads: Reads
    orders: Orders
    overview: Callable[[], Overview]
    progress: Callable[[Sequence[Override]], Mapping[int, tuple[Progress, ...]]]
    access: Access
    clock: Callable[[], datetime]
    failures: Mapping[type[Exception], int]  # what ``reads`` and ``orders`` raise: the text tells, and the HTTP status
