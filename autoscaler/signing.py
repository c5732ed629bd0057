"""The signature of a request to Alibaba Cloud, ACS3-HMAC-SHA256.

Pure: what varies from call to call, the nonce and the time, is an argument, so that a purchase can be signed as of its
reservation and a test can compare with published signatures. What is signed is what goes over the wire: the caller
sends these headers, this query text and these body bytes and nothing made anew from the same values.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from pydantic import SecretStr

ALGORITHM = "ACS3-HMAC-SHA256"
VERSION = "2015-12-15"  # of the container service's API


class CredentialUnavailable(Exception):
    """There is no credential to sign with. The text says why and what to do; it holds nothing secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """An access key of the cloud, temporary where it has a token."""

    access_key_id: str
    access_key_secret: SecretStr
    security_token: SecretStr | None = None

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that tell one access key from another, and a mended secret from the one before.

        They are too few of a hash of too long a secret to tell anything of it. A session's token is left out.
        """
        text = f"{self.access_key_id}\n{self.access_key_secret.get_secret_value()}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def quoted(text: str) -> str:
    """``text`` as one segment of a path or one part of a query, by RFC 3986: only letters, digits and -_.~ stay."""
    return quote(text, safe="~")


def canonical_query(query: Mapping[str, str]) -> str:
    """The query as it is signed, which is also how it has to be sent; '' for none."""
    return "&".join(f"{quoted(name)}={quoted(value)}" for name, value in sorted(query.items()))


def sign(
    method: str,
    path: str,
    query: Mapping[str, str],
    body: bytes | None,
    *,
    host: str,
    action: str,
    credential: Credential,
    nonce: str,
    at: datetime,
    version: str = VERSION,
) -> dict[str, str]:
    """The headers that make a request an authentic one.

    Args:
        method: upper case.
        path: as it is sent, quoted.
        query: by name, unquoted; sent as `canonical_query` gives it.
        body: the very bytes that are sent; None for no body.
        host: as in the Host header, with the port where it is not the scheme's own.
        action: the operation's name, such as ``DescribeClusterNodes``.
        credential: whose request it is.
        nonce: never used before.
        at: aware; the cloud refuses what is more than 15 minutes off its clock.
        version: of the API that the action belongs to.

    Returns:
        Lower-case names and values: every signed header, and ``authorization``.
    """
    body_hash = hashlib.sha256(body or b"").hexdigest()
    headers = {
        "host": host,
        "x-acs-action": action,
        "x-acs-content-sha256": body_hash,
        "x-acs-date": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": version,
    }
    if body is not None:
        headers["content-type"] = "application/json; charset=utf-8"
    if credential.security_token is not None:
        headers["x-acs-accesskey-id"] = credential.access_key_id
        headers["x-acs-security-token"] = credential.security_token.get_secret_value()

    names = sorted(headers)
    signed_names = ";".join(names)
    canonical_headers = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    canonical = "\n".join((method, path, canonical_query(query), canonical_headers, signed_names, body_hash))
    to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = credential.access_key_secret.get_secret_value().encode()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"{ALGORITHM} Credential={credential.access_key_id},SignedHeaders={signed_names},Signature={signature}"
    )
    return {**headers, "authorization": authorization}
