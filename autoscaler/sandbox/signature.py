"""Verifies an ACS3-HMAC-SHA256 signature from the bytes that came over the wire.

Written against Alibaba's page and its published vectors, and sharing no code with the client that signs: one mistake
made in a shared function would agree with itself and pass every test.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from autoscaler.sandbox.refusals import Refusal, Shape
from autoscaler.sandbox.wire import Request

CLOCK_WINDOW = timedelta(minutes=15)  # documented for Alibaba's gateway in general
ALWAYS_SIGNED = ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version")

_AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 Credential=(?P<id>[^,\s]+), ?SignedHeaders=(?P<signed>[^,\s]+), ?"
    r"Signature=(?P<hmac>[0-9a-f]{64})"
)


class Verifier:
    """Knows the access keys and the nonces already used.

    ``secrets`` maps access key ids to secrets, ``tokens`` the ids of temporary keys to their security tokens; both
    may be changed while it is in use, as keys are rotated.
    """

    def __init__(self, secrets: dict[str, str], tokens: dict[str, str]) -> None:
        self.secrets = secrets
        self.tokens = tokens
        self._nonces: set[str] = set()

    def verify(self, request: Request, now: datetime) -> None:
        """Return if the request is signed as it must be; its nonce is then used up.

        Raises ``Refusal`` with the gateway's code otherwise.
        """
        parts = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
        if parts is None:
            raise _refused(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        secret = self.secrets.get(parts["id"])
        if secret is None:
            raise _refused(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        headers = _signed_headers(request, parts["signed"])
        _check_date(headers["x-acs-date"], now)
        if headers["x-acs-content-sha256"] != hashlib.sha256(request.body).hexdigest():
            raise _refused(400, "SignatureDoesNotMatch", "x-acs-content-sha256 is not the hash of the body.")
        if not hmac.compare_digest(_signature(request, headers, secret), parts["hmac"]):
            raise _refused(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation.")
        self._check_token(parts["id"], headers)
        nonce = headers["x-acs-signature-nonce"]
        if nonce in self._nonces:
            raise _refused(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(nonce)

    def _check_token(self, access_key_id: str, headers: Mapping[str, str]) -> None:
        expected = self.tokens.get(access_key_id)
        if headers.get("x-acs-security-token") != expected:
            raise _refused(400, "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken does not fit.")
        if expected is not None and headers.get("x-acs-accesskey-id") != access_key_id:
            raise _refused(400, "IncompleteSignature", "x-acs-accesskey-id is required with a security token.")


def _signed_headers(request: Request, names: str) -> dict[str, str]:
    """The headers the signature covers, in their order; every one that must be covered has to be among them."""
    signed = names.split(";")
    if signed != sorted(set(signed)) or names != names.lower():
        raise _refused(400, "IncompleteSignature", "SignedHeaders must be lower-case, sorted and without repeats.")
    headers = {}
    for name in signed:
        value = request.header(name)
        if value is None:
            raise _refused(400, "IncompleteSignature", f"Signed header {name} is missing or repeated.")
        headers[name] = value
    required = {*ALWAYS_SIGNED, *(name for name, _ in request.headers if name.startswith("x-acs-"))}
    if request.body:
        required.add("content-type")
    unsigned = required - headers.keys()
    if unsigned:
        raise _refused(400, "IncompleteSignature", f"Header {min(unsigned)} must be signed.")
    return headers


def _check_date(text: str, now: datetime) -> None:
    try:
        at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _refused(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
    if abs(now - at) > CLOCK_WINDOW:
        raise _refused(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")


def _signature(request: Request, headers: Mapping[str, str], secret: str) -> str:
    pairs = sorted(parse_qsl(request.query, keep_blank_values=True))
    canonical = "\n".join(
        (
            request.method,
            request.path,
            "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in pairs),
            *(f"{name}:{value}" for name, value in headers.items()),
            "",
            ";".join(headers),
            headers["x-acs-content-sha256"],
        )
    )
    to_sign = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()


def _refused(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, code, message, Shape.JSON_UPPER)
