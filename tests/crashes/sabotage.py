"""Deliberately broken variants of the product, each with one promise taken out: the judge has to catch every one.

A variant takes a replica's parts and gives those that it puts in their place.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import SecretStr

from autoscaler.decision import Evaluation
from autoscaler.model import Answer, History, Override, Purchase, PurchaseState, RefusalClass, Refused, Unclear
from autoscaler.policy import Policy, WorkerSpec

Parts = dict[str, Any]


class _Over:
    """Something with a part of it replaced."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _TriesAgain(_Over):
    """A client that repeats what was not answered, as known ones do, signed anew."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        answer: Answer = self.real.scale_out(purchase, worker, password)
        if isinstance(answer, Unclear):
            answer = self.real.scale_out(replace(purchase, nonce=purchase.nonce[::-1]), worker, password)
        return answer


class _TriesTheSameAgain(_Over):
    """A client that repeats what was not answered, byte by byte the same."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        answer: Answer = self.real.scale_out(purchase, worker, password)
        return self.real.scale_out(purchase, worker, password) if isinstance(answer, Unclear) else answer


class _TakesSilenceForNo(_Over):
    """A client to whom a timeout is a refusal."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        answer: Answer = self.real.scale_out(purchase, worker, password)
        return Refused(RefusalClass.BUSY, "Timeout", answer.detail) if isinstance(answer, Unclear) else answer


class _TakesAbsenceForNo(_Over):
    """A ledger by which an unknown purchase that one look did not find was not bought."""

    def __init__(self, real: Any) -> None:
        super().__init__(real)
        self._seen: set[int] = set()

    def unsettled(self) -> tuple[Purchase, ...]:
        rows: tuple[Purchase, ...] = self.real.unsettled()
        for row in rows:
            if row.state is PurchaseState.UNKNOWN and row.id in self._seen:
                self.real.change(row.id, _not_bought, row.signed_at, "absent")
            elif row.state is PurchaseState.UNKNOWN:
                self._seen.add(row.id)
        return rows


def _not_bought(purchase: Purchase) -> Purchase:
    return replace(purchase, state=PurchaseState.NOT_BOUGHT, ended_at=purchase.signed_at)


class _TakesADeathForNo(_Over):
    """A ledger by which what a dead process was sending was not sent."""

    def change(self, id: int, next: Callable[[Purchase], Purchase], at: datetime, *why: Any) -> Purchase:
        def denied(purchase: Purchase) -> Purchase:
            after = next(purchase)
            if purchase.state is PurchaseState.SENDING and after.answered_at is None:
                return replace(after, state=PurchaseState.CANCELLED, ended_at=at)
            return after

        changed: Purchase = self.real.change(id, denied, at, *why)
        return changed


class _ClaimsBlindly(_Over):
    """A ledger that lets a purchase be sent in whatever state it is."""

    def begin_sending(self, reserved: Purchase, holder: str, now: datetime) -> str | None:
        self.real.change(reserved.id, lambda p: replace(p, state=PurchaseState.SENDING, sent_at=now), now, holder)
        return None


class _SendsBeforeItWrites(_Over):
    """A ledger that sends within the reservation, and the seller that then has been there already."""

    def __init__(self, real: Any, seller: Any, password: SecretStr) -> None:
        super().__init__(real)
        self._seller = seller
        self._password = password
        self._answers: dict[str, Answer] = {}

    def reserve(
        self,
        policy: Policy,
        now: datetime,
        holder: str,
        propose: Callable[[History, tuple[Override, ...]], tuple[Evaluation, Purchase | None]],
    ) -> Any:
        def hasty(history: History, overrides: tuple[Override, ...]) -> tuple[Evaluation, Purchase | None]:
            evaluation, purchase = propose(history, overrides)
            if purchase is not None:
                self._answers[purchase.nonce] = self._seller.scale_out(purchase, policy.worker, self._password)
            return evaluation, purchase

        return self.real.reserve(policy, now, holder, hasty)

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        return self._answers[purchase.nonce]


def _sold_by(client: type[_Over]) -> Callable[[Parts], Parts]:
    return lambda parts: {"seller": partial(_sell_by, client, parts["seller"])}


def _sell_by(client: type[_Over], seller: Callable[[Purchase], Any], purchase: Purchase) -> Any:
    return client(seller(purchase))


def _kept_by(ledger: type[_Over]) -> Callable[[Parts], Parts]:
    return lambda parts: {"ledger": ledger(parts["ledger"])}


def _sends_first(parts: Parts) -> Parts:
    both = _SendsBeforeItWrites(parts["ledger"], parts["cloud"], parts["password"](None))
    return {"ledger": both, "seller": lambda purchase: both}


SABOTAGES: Mapping[str, Callable[[Parts], Parts]] = {
    "none": lambda parts: {},
    "tries again": _sold_by(_TriesAgain),
    "tries the same again": _sold_by(_TriesTheSameAgain),
    "takes silence for no": _sold_by(_TakesSilenceForNo),
    "takes absence for no": _kept_by(_TakesAbsenceForNo),
    "takes a death for no": _kept_by(_TakesADeathForNo),
    "claims blindly": _kept_by(_ClaimsBlindly),
    "sends before it writes": _sends_first,
}
