"""What is refused before anything looks at it: bodies that are too long or too slow, and writes from other sites."""

import asyncio
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoscaler.web.problem import answer

LONGEST_BODY = 64 * 1024  # bytes; an order that names a thousand policies takes less
SLOWEST_BODY_SECONDS = 10
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Lets a request through with its body read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in _SAFE and is_foreign(headers.get("origin"), headers.get("host", "")):
            await answer(
                403, "orders are not taken from pages of another site; a proxy before this one has to pass Host on"
            )(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SLOWEST_BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            await answer(408, f"the body did not come within {SLOWEST_BODY_SECONDS} s")(scope, receive, send)
            return
        if body is None:
            await answer(413, f"the body is longer than {LONGEST_BODY} bytes")(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)


def is_foreign(origin: str | None, host: str) -> bool:
    """Whether a browser says that a request comes from a page of another site than ``host`` (with its port)."""
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None: it is too long."""
    parts, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return b""  # the client is gone, and whoever asks for more is told so
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > LONGEST_BODY:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
