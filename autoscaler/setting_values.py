"""What text each kind of setting takes, and the value it makes.

A refusal says what is wrong and the mend and never quotes the text: it may be a secret under the wrong name.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from autoscaler.duration import parse_duration
from autoscaler.secret import FileSecret, FixedSecret, SecretUnusable, one_line

# RFC 6750's characters of a bearer token. 16 of them, of a random hexadecimal token, are 64 bits.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SHORTEST_TOKEN = 16
_AUTHOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int  # 0: any free one

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A bearer token, and the author in whose name it gives orders."""

    author: str
    token: SecretStr


def _refused(what: str, mend: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "refused", {"what": what, "mend": mend})


def _text(raw: str) -> str:
    if raw != raw.strip() or not raw.isprintable():
        raise _refused("has blanks around it or control characters", "remove them")
    return raw


def _existing_file(raw: str) -> Path:
    path = Path(raw)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise _refused("there is no such file, or it cannot be read", "give the path of a readable file")
    return path


def _duration(raw: str) -> timedelta:
    try:
        duration = parse_duration(raw)
    except ValueError:
        raise _refused("is not a duration", "write it as 5s, 10m, 1h30m or 90d") from None
    if duration <= timedelta(0):
        raise _refused("is not more than zero", "write it as 5s, 10m, 1h30m or 90d")
    return duration


def _boolean(raw: str) -> bool:
    if raw.lower() not in {"true", "false"}:
        raise _refused("is neither true nor false", "write true or false")
    return raw.lower() == "true"


def one_of(*choices: str) -> BeforeValidator:
    def choose(raw: str) -> str:
        if raw.lower() not in choices:
            raise _refused("is none of its values", f"write {' or '.join(choices)}")
        return raw.lower()

    return BeforeValidator(choose)


def _url(raw: str) -> str:
    mend = "write it as http://host:port or https://host"
    text = _text(raw)
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        raise _refused("is not a URL", mend) from None
    if url.scheme not in {"http", "https"} or not host:
        raise _refused("is not an http or https URL", mend)
    if url.username is not None:
        raise _refused("holds a user name or password", "take them out: URLs are logged, the other settings are not")
    if url.query or url.fragment:
        raise _refused("has a query or a fragment", mend)
    return raw.rstrip("/")


def _cloud_url(raw: str) -> str:
    url = _url(raw)
    parts = urlsplit(url)
    if parts.path:
        raise _refused("has a path", "write it as https://cs.aliyuncs.com")
    if parts.scheme == "http" and not _is_near(parts.hostname or ""):
        raise _refused("would send the workers' login password in clear", "write https://")
    return url


def _is_near(host: str) -> bool:
    """Whether ``host`` is this machine or a neighbouring container, where the sandbox may be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host


def _address(raw: str) -> Address:
    host, colon, port = _text(raw).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    mend = "write it as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
    if not colon or not host or (":" in bare and bare == host) or not re.fullmatch(r"[\w.:%-]+", bare):
        raise _refused("is not host:port", mend)
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise _refused("its port is not a number from 0 to 65535", mend)
    return Address(bare, int(port))


def _bearer(text: str) -> SecretStr:
    token = one_line(text)
    if not _TOKEN.fullmatch(token.get_secret_value()):
        raise SecretUnusable("is not a bearer token", "use letters, digits and . _ ~ + / - only")
    return token


def _ledger_url(text: str) -> SecretStr:
    url = one_line(text)
    scheme, separator, rest = url.get_secret_value().partition("://")
    if not separator or scheme not in {"sqlite", "postgresql+psycopg"}:
        raise SecretUnusable("is no ledger", "write sqlite:///path or postgresql+psycopg://user:password@host/database")
    if scheme == "sqlite" and (not rest.startswith("/") or rest == "/" or ":memory:" in rest):
        raise SecretUnusable("is not a file", "write sqlite:///path: a ledger in memory forgets what was bought")
    return url


def _api_tokens(text: str) -> tuple[ApiToken, ...]:
    # Entries are told by their number: what stands where the author should may be a token.
    tokens: list[ApiToken] = []
    mend = "write name=token, by comma or line"
    for number, entry in enumerate(filter(None, map(str.strip, re.split(r"[,\n]", text))), start=1):
        author, equals, token = (part.strip() for part in entry.partition("="))
        if not equals or not _AUTHOR.fullmatch(author):
            raise SecretUnusable(f"entry {number} does not begin with a name and =", mend)
        if not _TOKEN.fullmatch(token):
            raise SecretUnusable(f"entry {number} is not a bearer token", "use letters, digits and . _ ~ + / - only")
        if len(token) < _SHORTEST_TOKEN:
            raise SecretUnusable(
                f"the token of entry {number} is shorter than {_SHORTEST_TOKEN}", "make one by: openssl rand -hex 32"
            )
        if any(token == known.token.get_secret_value() for known in tokens):
            raise SecretUnusable(f"the token of entry {number} is there twice", "give each name tokens of its own")
        if sum(author == known.author for known in tokens) == 2:
            raise SecretUnusable(f"entry {number} is its name's third", "keep two: the old token and the new one")
        tokens.append(ApiToken(author, SecretStr(token)))
    if not tokens:
        raise SecretUnusable("holds no token", mend)
    return tuple(tokens)


class SecretForm(BeforeValidator):
    """Marks a setting as secret: given as it is, or as a path by the variable of the same name with _FILE."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        super().__init__(lambda raw: _secret(raw, parse))


def _secret(raw: str | Path | None, parse: Callable[[str], Any]) -> Callable[[], Any] | None:
    if raw is None:
        return None
    try:
        if isinstance(raw, str):
            return FixedSecret(parse(raw))
        secret = FileSecret(raw, parse)
        secret.read()
    except SecretUnusable as error:
        raise _refused(error.what if isinstance(raw, str) else f"its file {error.what}", error.mend) from None
    return secret


Text = Annotated[str, BeforeValidator(_text)]
Folder = Annotated[Path, BeforeValidator(_text)]
ExistingFile = Annotated[Path, BeforeValidator(_existing_file)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Switch = Annotated[bool, BeforeValidator(_boolean)]
Url = Annotated[str, BeforeValidator(_url)]
CloudUrl = Annotated[str, BeforeValidator(_cloud_url)]
ListenAddress = Annotated[Address, BeforeValidator(_address)]
OptionalSecret = Annotated[Callable[[], SecretStr] | None, SecretForm(one_line)]
OptionalBearer = Annotated[Callable[[], SecretStr] | None, SecretForm(_bearer)]
LedgerUrl = Annotated[Callable[[], SecretStr], SecretForm(_ledger_url)]
ApiTokens = Annotated[Callable[[], tuple[ApiToken, ...]] | None, SecretForm(_api_tokens)]
