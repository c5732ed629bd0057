"""The pages of orders: those in force and those that were, the form of a new one with its preview, and its end.

An order takes two steps, because some buy: the form is asked for again with what is in it, which changes nothing, and
shows what the order would do; only the button under that gives it. That button sends a key with the order, so that
pressed twice it is one order.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from autoscaler.duration import parse_duration
from autoscaler.model import OverrideKind
from autoscaler.orders import Preview
from autoscaler.override import Asked, KeyReused, OrderProblem, OrderRefused
from autoscaler.web.desk import Desk
from autoscaler.web.page.buying import whole_number
from autoscaler.web.page.frame import Before, Frame, Id, go
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.views import progress_of
from autoscaler.web.page.wording import Wording
from autoscaler.web.problem import Refusal

_PAGE = 50
_USUAL_END = "2h"  # what stands in the form at first: long enough to look, and it ends by itself
_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class Given:
    """What stands in the form, as it was typed."""

    kind: str = ""
    workers: str = ""
    policies: str = ""
    end: str = ""
    reason: str = ""

    def read(self, author: str, now: datetime) -> tuple[Asked, tuple[OrderProblem, ...]]:
        """What is asked for by it, and what of it cannot be read.

        Where something cannot, something that can be stands for it, so that whoever judges the rest finds its problems.
        """
        problems = []
        kind = self.kind
        if kind not in {each.value for each in OverrideKind}:
            problems.append(OrderProblem("kind", "is missing", "choose what to order"))
            kind = OverrideKind.FREEZE
        workers = None
        if kind != OverrideKind.FREEZE:
            workers = whole_number(self.workers)
            if workers is None and self.workers.strip():
                problems.append(OrderProblem("workers", "is not a whole number", "write it in digits"))
                workers = 1
        lasts, until = _end(self.end, now)
        if lasts is None and until is None and self.end.strip():
            mend = "write 2h, 08:00 or 2026-06-01T08:00Z"
            problems.append(OrderProblem("end", "is neither a length nor an instant", mend))
            lasts = timedelta(minutes=1)
        policies = tuple(self.policies.replace(",", " ").split())
        return Asked(OverrideKind(kind), policies, workers, author, self.reason, lasts, until), tuple(problems)


def routes(frame: Frame, desk: Desk) -> APIRouter:
    """The routes of these pages."""
    router, texts, reads, orders = APIRouter(), frame.texts, desk.reads, desk.orders
    SignedIn = Annotated[str, Depends(frame.signed_in)]
    Author = Annotated[str, Depends(frame.author)]

    def form(
        request: Request, given: Given, status: int = 200, problems: Sequence[OrderProblem] = (), **values: object
    ) -> Response:
        return frame.page(
            request,
            "order.html",
            here="orders",
            status=status,
            given=given,
            problems=[
                {"field": each.field, "title": texts(f"order.field.{each.field}"), "says": f"{each.what}; {each.mend}"}
                for each in problems
            ],
            names=sorted(standing.name for standing in desk.overview().policies),
            **{"preview": None, "confirmed": given} | values,
        )

    def previewed(given: Given, author: str, now: datetime) -> tuple[Asked, Preview]:
        """What is asked, and what it would do. Raises OrderRefused with every problem there is."""
        asked, unread = given.read(author, now)
        try:
            preview = orders.preview(asked)
        except OrderRefused as refused:
            raise OrderRefused((*unread, *refused.problems)) from None
        if unread:
            raise OrderRefused(unread)
        return asked, preview

    @router.get("/orders")
    def all_orders(request: Request, before: Before = None) -> Response:
        everything = desk.overview()
        history = reads.override_history(before_id=before, limit=_PAGE)
        view = {
            "overrides": everything.overrides,
            "progress": progress_of(everything.progress, texts),
            "history": history,
            "older": f"/orders?before={history[-1].id}" if len(history) == _PAGE else "",
        }
        return frame.page(request, "orders.html", here="orders", now=everything.at, view=view)

    @router.get("/order")
    def new_order(
        request: Request,
        author: SignedIn,
        kind: str = "",
        workers: str = "",
        policies: str = "",
        policy: Annotated[list[str] | None, Query()] = None,
        end: str = "",
        reason: str = "",
        preview: str = "",
    ) -> Response:
        chosen = " ".join([*policies.split(), *(policy or ())])
        if not preview:
            return form(request, Given(kind, workers, chosen, end or _USUAL_END, reason))
        given, now = Given(kind, workers, chosen, end, reason), frame.now()
        try:
            asked, shown = previewed(given, author, now)
        except OrderRefused as refused:
            return form(request, given, 422, refused.problems)
        # An end that is an instant is sent on as that instant: "08:00" would be another one after midnight.
        instant = given if asked.until is None else replace(given, end=asked.until.isoformat())
        view = _preview(shown, texts, Wording(texts, now))
        return form(request, given, now=now, preview=view, confirmed=instant)

    @router.post("/orders")
    def place(
        request: Request,
        author: Author,
        key: Annotated[str, Form()] = "",
        kind: Annotated[str, Form()] = "",
        workers: Annotated[str, Form()] = "",
        policies: Annotated[str, Form()] = "",
        end: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
    ) -> Response:
        if not key or len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise Refusal(400, texts("order.no_key"))
        given, now = Given(kind, workers, policies, end, reason), frame.now()
        asked, unread = given.read(author, now)
        try:
            if unread:
                previewed(given, author, now)  # tells of the rest, too
            placed = orders.place(asked, key)
        except OrderRefused as refused:
            return form(request, given, 422, refused.problems)
        except KeyReused as refused:
            raise Refusal(409, str(refused)) from None
        return frame.page(request, "placed.html", here="orders", order=placed.override, notes=placed.notes)

    def ending(request: Request, id: int, status: int = 200, reason: str = "", wrong: str = "") -> Response:
        order = reads.override(id)
        over = not order.active(frame.now())
        return frame.page(
            request, "end.html", here="orders", status=status, order=order, over=over, reason=reason, wrong=wrong
        )

    @router.get("/orders/{id}/end", dependencies=[Depends(frame.signed_in)])
    def how_to_end(request: Request, id: Id) -> Response:
        return ending(request, id)

    @router.post("/orders/{id}/end")
    def end_order(request: Request, id: Id, author: Author, reason: Annotated[str, Form()] = "") -> Response:
        try:
            orders.end(id, author, reason)
        except OrderRefused as refused:
            says = texts("and").join(f"{each.what}; {each.mend}" for each in refused.problems)
            return ending(request, id, 422, reason, says)
        return go("/orders?done=ended")

    return router


def _end(text: str, now: datetime) -> tuple[timedelta | None, datetime | None]:
    """How long, or until when; (None, None): neither. A time of day is the next such time, in UTC."""
    text = text.strip()
    try:
        return parse_duration(text), None
    except ValueError:
        pass
    try:
        at = time.fromisoformat(text.removesuffix("Z"))
        today = datetime.combine(now.date(), at, UTC)
        return None, today if today > now else today + timedelta(days=1)
    except ValueError:
        pass
    try:
        return None, datetime.fromisoformat(text)
    except ValueError:
        return None, None


def _preview(preview: Preview, texts: Texts, words: Wording) -> dict[str, object]:
    order, n = preview.override, len(preview.effects)
    kind = order.kind.value
    money = texts("and").join(f"{words.number(sum)} {currency}".rstrip() for currency, sum in preview.money)
    workers = texts("order.workers_n", n=preview.workers)
    total = ""
    if preview.workers:
        total = (
            texts("order.total_money", workers=workers, money=money) if money else texts("order.total", workers=workers)
        )
    return {
        "title": texts(f"order.heading.{kind}", workers=order.workers),
        "policies": texts("order.all") if order.policies == ("*",) else texts("and").join(order.policies),
        "n": n,
        "ends_at": order.ends_at,
        "reason": order.reason,
        "total": total,
        "effects": preview.effects,
        "key": secrets.token_urlsafe(18),
        "confirm": texts(f"order.confirm.{kind}", n=n, workers=order.workers, total=workers),
        "hint": texts("order.prepaid" if preview.workers else "order.ends_itself"),
    }
