"""The pages of purchases: all, one with its fate, and the forms by which a person says what nobody else can know."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request, Response

from autoscaler.budget import money_of
from autoscaler.model import Purchase, PurchaseState, RefusalClass
from autoscaler.override import OrderRefused
from autoscaler.purchase import OPEN, CannotSettle, quiet_at
from autoscaler.strategy import number
from autoscaler.web.desk import Desk
from autoscaler.web.page.frame import Before, Frame, Id, go
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.typed import whole_number, wrongs
from autoscaler.web.page.wording import Wording
from autoscaler.web.problem import Refusal

_PAGE = 50
_ONLY = {"open": OPEN, "unknown": {PurchaseState.UNKNOWN}, "refused": {PurchaseState.REJECTED}}
_FOR_A_PERSON = (RefusalClass.POLICY, RefusalClass.ACCOUNT, RefusalClass.GONE)


def routes(frame: Frame, desk: Desk) -> APIRouter:
    """The routes of these pages."""
    router, texts, reads, orders = APIRouter(), frame.texts, desk.reads, desk.orders
    Author = Annotated[str, Depends(frame.author)]

    @router.get("/purchases")
    def all_purchases(request: Request, policy: str = "", only: str = "", before: Before = None) -> Response:
        policy = policy.strip()
        kept = {"policy": policy} if policy else {}
        states = _ONLY.get(only)
        found = reads.purchases(policy=policy or None, states=states, before_id=before, limit=_PAGE)
        asked = kept | ({"only": only} if states else {})
        older = "/purchases?" + urlencode(asked | {"before": found[-1].id}) if len(found) == _PAGE else ""
        choices = [
            {
                "word": texts(f"purchase.choice.{key or 'all'}"),
                "href": "/purchases?" + urlencode(kept | ({"only": key} if key else {})),
                "chosen": key == (only if states else ""),
            }
            for key in ("", *_ONLY)
        ]
        return frame.page(
            request,
            "purchases.html",
            here="purchases",
            purchases=found,
            choices=choices,
            older=older,
            policy=policy,
        )

    def show(
        request: Request, id: int, status: int = 200, said: dict[str, str] | None = None, wrong: str = ""
    ) -> Response:
        purchase = reads.purchase(id)
        if purchase is None:
            raise Refusal(404, texts("purchase.unknown", id=id))
        now = frame.now()
        words = Wording(texts, now)
        unknown = purchase.state is PurchaseState.UNKNOWN
        refused = purchase.refusal in _FOR_A_PERSON and purchase.retried_at is None
        form = {"outcome": "", "bought": str(purchase.asked), "reason": "", "wrong": wrong} | (said or {})
        earliest = quiet_at(purchase)
        hint = "settle.not_bought_hint" if now >= earliest else "settle.not_bought_later"
        form["not_bought_hint"] = texts(hint, at=words.clock(earliest), ago=words.ago(earliest))
        return frame.page(
            request,
            "purchase.html",
            here="purchases",
            status=status,
            now=now,
            purchase=purchase,
            lead=_lead(purchase, texts),
            settle=form if unknown else None,
            retry=form if refused else None,
            wrong=wrong if not unknown and not refused else "",
            decision=reads.decision_of(id),
            events=reads.purchase_events(id),
            facts=tuple(_facts(purchase, texts, words)),
        )

    @router.get("/purchases/{id}")
    def one_purchase(request: Request, id: Id) -> Response:
        return show(request, id)

    @router.post("/purchases/{id}/settle")
    def settle(
        request: Request,
        id: Id,
        author: Author,
        outcome: Annotated[str, Form()] = "",
        bought: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
    ) -> Response:
        said = {"outcome": outcome, "bought": bought, "reason": reason}
        if outcome not in ("bought", "not_bought"):
            return show(request, id, 422, said, texts("settle.choose"))
        workers = whole_number(bought)
        if outcome == "bought" and workers is None:
            return show(request, id, 422, said, texts("settle.no_number"))
        workers = workers if outcome == "bought" else None
        return done(request, id, said, lambda: orders.settle(id, workers, author, reason))

    @router.get("/purchases/{id}/settle")
    @router.get("/purchases/{id}/retry")
    def back(id: Id) -> Response:
        """Where whoever had to sign in after sending a form goes on."""
        return go(f"/purchases/{id}")

    @router.post("/purchases/{id}/retry")
    def retry(request: Request, id: Id, author: Author, reason: Annotated[str, Form()] = "") -> Response:
        return done(request, id, {"reason": reason}, lambda: orders.retry(id, author, reason))

    def done(request: Request, id: int, said: dict[str, str], do: Callable[[], object]) -> Response:
        if reads.purchase(id) is None:
            raise Refusal(404, texts("purchase.unknown", id=id))
        try:
            do()
        except OrderRefused as refused:
            told = (f"{each.title}: {each.says}" for each in wrongs(refused.problems, texts))
            return show(request, id, 422, said, texts("and").join(told))
        except CannotSettle as refused:
            return show(request, id, 409, said, str(refused))
        return go(f"/purchases/{id}?done=settled")

    return router


def _lead(purchase: Purchase, texts: Texts) -> str:
    workers = texts("purchase.workers", n=purchase.asked)
    return texts(f"purchase.lead.{purchase.state.value}", workers=workers)


def _facts(purchase: Purchase, texts: Texts, words: Wording) -> Iterator[tuple[str, str]]:
    """What is known of it, each with the name of its text."""
    terms, money = purchase.terms, money_of(purchase)

    def moment(at: datetime | None) -> str | None:
        return None if at is None else f"{words.instant(at)} ({words.ago(at)})"

    renewed = texts("purchase.renewed", n=terms.auto_renew_period or 1) if terms.auto_renew else texts("purchase.ends")
    told: tuple[tuple[str, str | None], ...] = (
        ("policy", f"{purchase.policy}, {purchase.policy_version}"),
        ("cluster", purchase.cluster_id),
        ("asked", str(purchase.asked)),
        ("arrived", str(purchase.arrived)),
        ("failed", str(purchase.failed)),
        ("outstanding", str(purchase.outstanding)),
        ("worker", f"{terms.instance_type}, {terms.ens_region_id}"),
        ("term", texts("purchase.term", n=terms.period, renewed=renewed)),
        ("committed", None if money is None else f"{number(money)} {terms.currency or ''}".rstrip()),
        ("order", None if purchase.order_id is None else str(purchase.order_id)),
        ("reserved", moment(purchase.reserved_at)),
        ("sent", moment(purchase.sent_at)),
        ("answered", moment(purchase.answered_at)),
        ("ended", moment(purchase.ended_at)),
        ("overdue", moment(purchase.overdue_at)),
        ("task", purchase.task_id),
        ("code", purchase.code),
        ("message", purchase.message),
        ("failures", texts("and").join(purchase.failures) or None),
        ("request", purchase.request_id),
        ("endpoint", purchase.endpoint),
        ("credential", purchase.credential),
        ("nonce", purchase.nonce),
    )
    yield from ((name, value) for name, value in told if value is not None)
