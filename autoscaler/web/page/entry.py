"""Signing in by an API token, and out again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from autoscaler.web.access import Access
from autoscaler.web.page.frame import Frame, go, local
from autoscaler.web.page.session import COOKIE, LASTS


def routes(frame: Frame, access: Access) -> APIRouter:
    """The routes of signing in and out."""
    router, texts = APIRouter(), frame.texts
    form_of_ours = [Depends(frame.sent_here)]

    def form(request: Request, then: str, status: int = 200, wrong: str = "") -> Response:
        return frame.page(
            request,
            "sign_in.html",
            here="sign-in",
            status=status,
            next=then,
            wrong=wrong,
            possible=bool(access.tokens()),
        )

    @router.get("/sign-in")
    def how_to_sign_in(request: Request, next: str = "/") -> Response:
        return form(request, local(next))

    @router.post("/sign-in", dependencies=form_of_ours)
    async def sign_in(
        request: Request, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
    ) -> Response:
        token = token.strip()
        author = await access.author_of(token, request.client.host if request.client else "")
        if author is None:
            return form(request, local(next), 403, texts("sign_in.wrong"))
        answer = go(local(next))
        answer.set_cookie(
            COOKIE,
            frame.sessions.begin(author, token),
            max_age=int(LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=_over_tls(request),
        )
        return answer

    @router.post("/sign-out", dependencies=form_of_ours)
    def sign_out(request: Request) -> Response:
        answer = go("/")
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_over_tls(request))
        return answer

    return router


def _over_tls(request: Request) -> bool:
    """Whether the browser sees us over TLS, by its own word.

    A proxy that ends TLS would say so too, in a header that anybody can send; the browser says it in the Origin, and
    its own cookie is all that a lie could spoil.
    """
    return request.headers.get("origin", "").startswith("https://")
