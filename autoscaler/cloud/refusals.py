"""What an answer to a purchase means: accepted, surely refused, or unclear.

A refusal ends a purchase and lets the next one be made, so it has to be certain that nothing was bought. It is certain
only for the codes of one closed table; every other answer is unclear. The code counts before the status: a 503 that
says ``Throttling`` never reached the sale, one that says nothing may come from behind it.

A refusal is also told with a status of 4xx or 5xx and names no task: an answer that contradicts itself is unclear.
"""

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from autoscaler.model import Accepted, Answer, RefusalClass, Refused, Unclear

_INVALID_NAME = "Invalid[A-Z]*"  # Invalid{Name}: what is named is a field or a thing of the request

# Patterns of codes, the first that fits counts; a pattern also covers its sub-codes, "X" those that begin "X.".
# SignatureNonceUsed is left out on purpose: each purchase is sent once, so something on the way delivered it twice,
# and the first delivery may have been sold.
REFUSALS: tuple[tuple[str, RefusalClass], ...] = (
    ("Throttling*", RefusalClass.LATER),
    ("InvalidApi.NotFound", RefusalClass.GONE),
    ("UnsupportedOperation", RefusalClass.GONE),
    ("InvalidStatus", RefusalClass.BUSY),
    ("SignatureDoesNotMatch", RefusalClass.ACCOUNT),
    ("IncompleteSignature", RefusalClass.ACCOUNT),
    ("InvalidAccessKeyId", RefusalClass.ACCOUNT),
    # Not for a person: a wrong clock is told by every look, and what stood still on its way is over once it went on.
    ("InvalidTimeStamp.Expired", RefusalClass.LATER),
    ("InvalidTimeStamp", RefusalClass.ACCOUNT),
    ("InvalidSecurityToken", RefusalClass.ACCOUNT),
    ("Forbidden*", RefusalClass.ACCOUNT),
    ("NoPermission", RefusalClass.ACCOUNT),
    # stock, balance, quota
    ("InventoryExceeded", RefusalClass.LATER),
    ("OperationDenied.NoStock", RefusalClass.LATER),
    ("InsufficientBalance", RefusalClass.LATER),
    ("InvalidAccountStatus.NotEnoughBalance", RefusalClass.LATER),
    ("QuotaExceed*", RefusalClass.LATER),  # QuotaExceeded.…, and the compute service's QuotaExceed.…
    ("MissingParameter*", RefusalClass.POLICY),
    ("InvalidParameter*", RefusalClass.POLICY),
    ("ErrorClusterNotFound", RefusalClass.POLICY),
    (_INVALID_NAME, RefusalClass.POLICY),
)

# Said with any code, or with none.
_BUSY_MESSAGE = "cannot operate cluster where state is"

_LONGEST_TEXT = 500  # characters of a message that are kept: it goes into logs, the ledger and pages

# "code=415, message=…, requestId=…", as gateways answer in plain text.
_PLAIN_CODE = re.compile(r"\A\s*code\s*[=:]\s*([\w.]+)\s*,", re.IGNORECASE)
_PLAIN_MESSAGE = re.compile(r"\bmessage\s*[=:]\s*(.*?)\s*(?:,\s*request_?id\s*[=:]|\Z)", re.IGNORECASE | re.DOTALL)
_PLAIN_REQUEST_ID = re.compile(r"\brequest_?id\s*[=:]\s*([\w-]+)", re.IGNORECASE)
_HTML = re.compile(r"<!doctype html|<html", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """What the body of an answer says, whatever its shape; nothing where it does not say it."""

    code: str | None = None
    message: str = ""
    request_id: str | None = None
    task_id: str | None = None
    broken: bool = False  # it begins like JSON or XML and breaks off: what it leaves out may be what counts

    def __str__(self) -> str:
        request = f"(request {self.request_id})" if self.request_id else ""
        return " ".join(part for part in (self.code, self.message, request) if part)


def read_body(body: bytes, hide: Iterable[str] = ()) -> Said:
    """What a body says: JSON in either spelling, ``code=…, message=…``, XML, HTML, or nothing of use.

    Args:
        body: of any content type; the header that names it is not always right.
        hide: texts that must not be repeated: servers quote requests, and a purchase holds a password.
    """
    text = body.decode("utf-8-sig", "replace").strip()
    found: dict[str, object] = {}
    broken = False
    if text.startswith(("{", "[")):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            broken = True
        else:
            found = _by_plain_name(parsed)
    elif text.startswith("<"):
        broken = not text.endswith(">")
        if not _HTML.search(text):
            found = {name.lower(): _element(text, name) for name in ("Code", "Message", "RequestId")}
    else:
        found = {
            "code": _group(_PLAIN_CODE, text),
            "message": _group(_PLAIN_MESSAGE, text),
            "requestid": _group(_PLAIN_REQUEST_ID, text),
        }
    secrets = tuple(secret for secret in hide if secret)
    code, message, request_id = (one_line(_text(found.get(name)), secrets) for name in ("code", "message", "requestid"))
    task = found.get("taskid")
    task_id = one_line(task, secrets) if isinstance(task, str) else ""
    return Said(code or None, message, request_id or None, task_id or None, broken)


def refusal_class(status: int, said: Said) -> RefusalClass | None:
    """The class of a sure refusal; None: it is none that is known."""
    if status < 400 or said.task_id is not None:
        return None
    if _BUSY_MESSAGE in f"{said.code} {said.message}".lower():
        return RefusalClass.BUSY
    for pattern, refusal in REFUSALS:
        if said.code is None or not (fnmatchcase(said.code, pattern) or fnmatchcase(said.code, f"{pattern}.*")):
            continue
        if pattern == _INVALID_NAME and status >= 500:
            # A server that calls its own trouble InvalidResponse or the like speaks of what came back from the sale.
            return None
        return refusal
    # The path itself is not served: no code of the API, in whatever shape, or only the status again. A 404 with a code
    # that is not in the table comes from behind the path and is unclear like any other unlisted 4xx.
    if status == 404 and not said.broken and (said.code is None or said.code.isdecimal()):
        return RefusalClass.GONE
    return None


def answer(status: int, body: bytes, hide: Iterable[str] = ()) -> Answer:
    """What the cloud's answer to a purchase means; never raises, whatever it is."""
    said = read_body(body, hide)
    if 200 <= status < 300 and said.task_id is not None:
        return Accepted(said.task_id, said.request_id)
    refusal = refusal_class(status, said)
    if refusal is not None:
        return Refused(refusal, said.code or str(status), said.message, said.request_id)
    return Unclear(
        f"answered {status}, which says neither bought nor refused: {str(said) or 'nothing'}", said.request_id
    )


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """One printable line of bounded length, without the secrets; databases refuse NUL and lone surrogates."""
    for secret in secrets:
        # As it is, and as it stands in a quoted JSON or XML body.
        for form in (secret, json.dumps(secret)[1:-1], html.escape(secret)):
            text = text.replace(form, "***")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:_LONGEST_TEXT]


def _by_plain_name(parsed: object) -> dict[str, object]:
    """Members by name without case and underscores: ``RequestId``, ``requestId`` and ``request_id`` are one."""
    if not isinstance(parsed, dict):
        return {}
    return {str(name).replace("_", "").lower(): value for name, value in parsed.items()}


def _element(text: str, name: str) -> str | None:
    # Not an XML parser: three leaf elements are asked for, of a body that nobody vouches for.
    match = re.search(rf"<{name}>\s*(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?\s*</{name}>", text, re.DOTALL)
    return html.unescape(match[1]) if match else None


def _group(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[1] if match else None


def _text(value: object) -> str:
    """A code or message of a proper type, else nothing; a number is a code in some gateways' JSON."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""
