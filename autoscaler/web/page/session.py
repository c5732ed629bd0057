"""Who is signed in: a cookie that says so and is signed by a token, and that nothing has to remember.

The key is made from the person's own API token. So a session is good at every replica and after a restart, and ends
with its token: whoever takes a token out of the settings ends every session that was begun with it. A cookie says who
and until when, and never holds the token. Signing out takes it from the browser; a copy of it stays good for the rest
of its hours, or until the token goes.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from autoscaler.web.access import Token

LASTS = timedelta(hours=12)  # a shift
COOKIE = "autoscaler_session"


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in."""

    author: str
    ends_at: datetime


class Sessions:
    """Begins sessions and knows them again."""

    def __init__(self, tokens: Callable[[], Iterable[Token]], clock: Callable[[], datetime]) -> None:
        """``tokens``: those that hold now."""
        self._tokens = tokens
        self._clock = clock

    def begin(self, author: str, token: str) -> str:
        """The cookie of a session of the author whose token this is."""
        ends = int((self._clock() + LASTS).timestamp())
        return f"{author}.{ends}.{_signature(author, ends, token)}"

    def of(self, cookie: str) -> Session | None:
        """The session that a cookie is of; None: it is forged, its time is up, or its token holds no more."""
        said, _, signature = cookie.rpartition(".")
        author, _, ends = said.rpartition(".")
        if not (ends.isascii() and ends.isdigit() and len(ends) <= 11 and signature.isascii()):
            return None
        ends_at = datetime.fromtimestamp(int(ends), UTC)
        known = False
        for token in self._tokens():
            # Each is compared, and each in the same time, whosever it is.
            signed = _signature(token.author, int(ends), token.token.get_secret_value())
            known |= hmac.compare_digest(signed, signature) and token.author == author
        return Session(author, ends_at) if known and self._clock() < ends_at else None


def _signature(author: str, ends: int, token: str) -> str:
    return hmac.new(_key(token), f"{author}\n{ends}".encode(), hashlib.sha256).hexdigest()


@lru_cache(maxsize=128)
def _key(token: str) -> bytes:
    # Slow on purpose, some 40 ms once a token: a copied cookie is then no way to guess a short token.
    return hashlib.scrypt(token.encode(), salt=b"autoscaler session", dklen=32, n=2**14, r=8, p=1)
