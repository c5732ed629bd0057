"""Who may ask what: bearer tokens, each of which is an author.

A wrong token is answered late, the later the more of them came from that address, and no sooner than that for any
number of requests at once. A right one is answered at once, whatever others did from the same address.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from fastapi import Request
from pydantic import SecretStr

from autoscaler.web.problem import Refusal

FIRST_DELAY_SECONDS = 0.25
MOST_DELAY_SECONDS = 8.0
FORGIVEN_AFTER_SECONDS = 600.0
MOST_ADDRESSES = 10_000  # remembered; the oldest are forgotten first

_NO_TOKENS = (
    "orders over HTTP are refused, because nobody has a token; set AUTOSCALER_API_TOKENS to name=token, or give the "
    "order by the command line"
)
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Token(Protocol):
    """A token, and in whose name it gives orders."""

    @property
    def author(self) -> str: ...

    @property
    def token(self) -> SecretStr: ...


class Access:
    """Tells who asks. ``tokens`` gives those that hold at that moment; None: nobody has one."""

    def __init__(
        self,
        tokens: Callable[[], Sequence[Token]] | None,
        *,
        reads_need_token: bool,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tokens = tokens
        self.reads_need_token = reads_need_token
        self._timer = timer
        self._sleep = sleep
        self._failed: dict[str, tuple[int, float]] = {}  # by address: how often, and when last

    def tokens(self) -> Sequence[Token]:
        """Those that hold now."""
        return () if self._tokens is None else self._tokens()

    async def reader(self, request: Request) -> None:
        """Let those in who may read."""
        if self.reads_need_token:
            await self.author(request)

    async def author(self, request: Request) -> str:
        """In whose name the request is. Raises Refusal."""
        if self._tokens is None:
            raise Refusal(403, _NO_TOKENS)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "this needs a token; send it as Authorization: Bearer TOKEN", _CHALLENGE)
        author = await self.author_of(token.strip(), request.client.host if request.client else "")
        if author is None:
            raise Refusal(401, "the token is not one of those that hold now", _CHALLENGE)
        return author

    async def author_of(self, token: str, address: str) -> str | None:
        """Whose token this is; None, some time later: nobody's."""
        found = None
        for known in self.tokens():
            # Each is compared, and each in the same time, whichever of them is the right one.
            same = hmac.compare_digest(known.token.get_secret_value().encode(), token.encode("utf-8", "surrogatepass"))
            found = known.author if same else found
        if found is None:
            # However many wait already: an answer at once, whatever it says, would tell that the token is wrong.
            await self._sleep(self._delay(address))
        return found

    def _delay(self, address: str) -> float:
        """Count one more wrong token of an address; how late it is answered, in seconds."""
        now = self._timer()
        times, last = self._failed.pop(address, (0, now))
        times = times + 1 if now - last < FORGIVEN_AFTER_SECONDS else 1
        self._failed[address] = times, now  # at the end again: the first is the one that has not failed for longest
        if len(self._failed) > MOST_ADDRESSES:
            del self._failed[next(iter(self._failed))]
        return min(FIRST_DELAY_SECONDS * float(2 ** min(times - 1, 10)), MOST_DELAY_SECONDS)
