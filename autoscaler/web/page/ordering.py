"""The pages of orders: those in force and those that were, the form of a new one with its preview, and its end.

An order takes two steps, because some buy: the form is asked for again with what is in it, which changes nothing, and
shows what the order would do; only the button under that gives it. That button sends a key with the order, so that
pressed twice it is one order.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from autoscaler.orders import Preview
from autoscaler.override import Asked, KeyReused, OrderProblem, OrderRefused
from autoscaler.web.desk import Desk
from autoscaler.web.page.frame import Before, Frame, Id, go
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.typed import Given, wrongs
from autoscaler.web.page.views import progress_of
from autoscaler.web.page.wording import Wording
from autoscaler.web.problem import Refusal

_PAGE = 50
_USUAL_END = "2h"  # what stands in the form at first: long enough to look, and it ends by itself
_LONGEST_KEY = 64


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
            problems=wrongs(problems, texts),
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
            return ending(
                request, id, 422, reason, texts("and").join(each.says for each in wrongs(refused.problems, texts))
            )
        return go("/orders?done=ended")

    return router


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
