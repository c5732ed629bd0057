"""Prometheus servers that policies name, as ``_shared.yaml`` describes them."""

import re
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from autoscaler.policy.fields import FilePath, Line, Part, Refusal
from autoscaler.policy.secret import Header, Secret, SecretReference


class PrometheusServer(Part):
    """A Prometheus server that policies name; its secrets are references."""

    url: str = Field(examples=["https://prometheus.example.com"])
    """Its address, with the path prefix if it has one."""
    token: Secret | None = None
    """Bearer token."""
    username: Line | None = None
    """Name for basic authentication."""
    password: Secret | None = None
    """Password for basic authentication."""
    ca: FilePath | None = None
    """Path of the certificate authority's PEM file."""
    cert: FilePath | None = None
    """Path of the client certificate's PEM file."""
    key: FilePath | None = None
    """Path of the client key's PEM file."""
    headers: dict[str, Header] = Field(default_factory=dict, repr=False)
    """Further request headers; a value is a text or a reference to a secret."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        mend = "write http:// or https://, the host, and a path prefix if it has one"
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise Refusal("is not an address", mend) from None
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            # Not quoted: it may hold a password.
            raise Refusal("holds more than an address", f"{mend}; credentials go into username, password, token")
        if not usable:
            raise Refusal("is not an address", mend)
        return url

    @field_validator("headers")
    @classmethod
    def _no_plain_credentials(cls, headers: dict[str, str | SecretReference]) -> dict[str, str | SecretReference]:
        for name, value in headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                raise Refusal("has a name that is no header", "use letters, digits and '-'")
            if isinstance(value, str) and name.lower() in {"authorization", "proxy-authorization", "cookie"}:
                raise Refusal(
                    "holds a secret in plain text", "use token, or {env: NAME} or {file: /whole/path}", (name,)
                )
        return headers

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise Refusal("has both a token and a username or password", "keep one of them")
        if (self.username is None) != (self.password is None):
            raise Refusal("has only one of username and password", "give both")
        if (self.cert is None) != (self.key is None):
            raise Refusal("has only one of cert and key", "give both")
        return self
