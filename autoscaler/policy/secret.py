"""Secrets as policy files have them: by reference only, and never repeated when one was typed all the same."""

import re
import string
from typing import Annotated, Any, Final, Self

from pydantic import PlainSerializer, PlainValidator, SecretStr, ValidationError, WithJsonSchema, model_validator

from autoscaler.policy.fields import Part, Refusal

SECRET_KEYS: Final = frozenset({"login_password", "token", "password", "headers"})
"""Keys under which nothing is ever quoted in a message, neither value nor key."""

_SECRET_MEND = "write {env: NAME} or {file: /whole/path}; never the password itself"


class SecretReference(Part):
    """Where a secret is found: exactly one of an environment variable and a file."""

    env: str | None = None
    """Name of an environment variable."""
    file: str | None = None
    """Whole path of a file; it is read again when it changes."""

    @model_validator(mode="after")
    def _is_a_reference(self) -> Self:
        # A password typed in the wrong place is refused by its form, and not repeated.
        env_ok = self.env is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.env) is not None
        file_ok = self.file is not None and self.file.startswith("/") and self.file.isprintable()
        if (self.env is None) == (self.file is None) or not (env_ok or file_ok):
            raise Refusal("does not name an environment variable or a file", _SECRET_MEND)
        return self


def _reference(value: object) -> SecretReference:
    if isinstance(value, SecretReference):
        return value
    if not isinstance(value, dict):
        raise Refusal("is not a reference to a secret", _SECRET_MEND)
    try:
        return SecretReference.model_validate(value)
    except ValidationError:
        raise Refusal("does not name an environment variable or a file", _SECRET_MEND) from None


def _header(value: object) -> str | SecretReference:
    return value if isinstance(value, str) and value.isprintable() else _reference(value)


def _reference_form(value: str | SecretReference) -> Any:
    return value.model_dump(exclude_none=True) if isinstance(value, SecretReference) else value


_REFERENCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}, "file": {"type": "string"}},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
Secret = Annotated[
    SecretReference,
    PlainValidator(_reference),
    PlainSerializer(_reference_form, when_used="json"),
    WithJsonSchema(_REFERENCE_SCHEMA),
]
Header = Annotated[str | SecretReference, PlainValidator(_header), PlainSerializer(_reference_form, when_used="json")]


# Those that Alibaba Cloud lists: all of ASCII's but the double quote and the backslash.
_SPECIAL = string.punctuation.replace('"', "").replace("\\", "")


def password_problem(password: SecretStr) -> str | None:
    """Why the cloud would refuse ``password`` for its workers, in words that tell nothing of it; None: it would not.

    The rule is the one Alibaba Cloud publishes: 8 to 30 characters, three kinds of upper case, lower case, digit and
    special. White space and what is not ASCII is refused too: it is a slip of an editor more often than meant.
    """
    text = password.get_secret_value()
    kinds = [string.ascii_uppercase, string.ascii_lowercase, string.digits, _SPECIAL]
    if any(character not in "".join(kinds) for character in text):
        return "holds white space or other characters than ASCII letters, digits and signs (a line break at its end?)"
    if not 8 <= len(text) <= 30:
        return "does not have 8 to 30 characters"
    if sum(any(character in kind for character in text) for kind in kinds) < 3:
        return "has fewer than three of upper case, lower case, digits and special characters"
    return None
