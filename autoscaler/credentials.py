"""Where the cloud's credential comes from: the settings, else the official library's chain.

Asked for anew at each request, so that rotated files and the short-lived tokens of a role need no restart. The official
library is an extra, and it reads the environment, starts threads and logs by itself from its import on: it is imported
only where the settings hold no key.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import SecretStr

from autoscaler.secret import SecretUnavailable
from autoscaler.signing import Credential, CredentialUnavailable

_NO_LIBRARY = (
    "no credential: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, "
    "or install the extra autoscaler[credentials] for roles"
)


def credential_source(
    access_key_id: Callable[[], SecretStr] | None,
    access_key_secret: Callable[[], SecretStr] | None,
    security_token: Callable[[], SecretStr] | None,
) -> Callable[[], Credential]:
    """What gives the credential as it is at that moment, of three settings or, without a key in them, of the chain.

    Returns:
        A callable, safe to use from several threads, that raises CredentialUnavailable.
    """
    if access_key_id is None or access_key_secret is None:
        return from_official_chain

    def from_settings() -> Credential:
        try:
            token = security_token() if security_token is not None else None
            return _credential(access_key_id().get_secret_value(), access_key_secret(), token)
        except SecretUnavailable as error:
            raise CredentialUnavailable(f"no credential: {error}") from None

    return from_settings


def from_official_chain() -> Credential:
    """The credential of the official library's chain: OIDC role (RRSA), profile, instance role, URI.

    Raises:
        CredentialUnavailable: the extra is not installed, or no link of the chain has a credential.
    """
    try:
        found = _official_client().get_credential()
    except ImportError:
        raise CredentialUnavailable(_NO_LIBRARY) from None
    except Exception as error:
        # Any exception: the chain raises its own, requests' and bare ones, and their texts may quote an answer of the
        # token service. Only the kind is told.
        raise CredentialUnavailable(
            f"no credential: the official chain failed ({type(error).__name__}); check the role, "
            "the OIDC provider and its token file, or set ALIBABA_CLOUD_ACCESS_KEY_ID and _ACCESS_KEY_SECRET"
        ) from None
    token = SecretStr(found.security_token) if found.security_token else None
    return _credential(found.access_key_id or "", SecretStr(found.access_key_secret or ""), token)


def _credential(key_id: str, key_secret: SecretStr, token: SecretStr | None) -> Credential:
    if not key_id or not key_secret.get_secret_value():
        raise CredentialUnavailable("no credential: the access key is empty")
    # They travel in headers; HTTP libraries refuse what does not fit there by errors that quote it.
    if not all(text.isascii() and text.isprintable() for text in (key_id, token.get_secret_value() if token else "")):
        raise CredentialUnavailable("no credential: the access key's id or token is not plain ASCII text")
    return Credential(key_id, key_secret, token)


@cache
def _official_client() -> Any:  # the library has no types
    library = import_module("alibabacloud_credentials.client")
    # Its own log has handlers past everyone else's format and level, and quotes tracebacks and answers of the token
    # service for what is told here in one line.
    logger = logging.getLogger("credentials")
    logger.handlers.clear()
    logger.disabled = True
    return library.Client()
