"""The kinds of value a policy is written in: how each is read, refused, written again and described to an editor.

Each kind reads what a policy file holds and what it writes itself, so a stored policy is read by the same rules as a
file. What it refuses it refuses by ``Refusal``: what is wrong, and the mend. Neither ever quotes a secret.
"""

import math
import re
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from autoscaler import promql
from autoscaler.duration import PATTERN as DURATION_PATTERN
from autoscaler.duration import format_duration, parse_duration

Path = tuple[str | int, ...]
"""Where a value stands in a policy: ``("checks", 1, "target")``."""

_NUMBER = re.compile(r"[-+]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][-+]?\d{1,2})?|-?\d{1,30}/\d{1,30}", re.ASCII)
_PERCENT: Final = r"^\d{1,6}(\.\d{1,6})?%$"
_IDENTIFIER: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_CURRENCY: Final = r"^[A-Z]{3}$"
LONGEST_NAME: Final = 100
POLICY_NAME: Final = r"^[a-z0-9]([-a-z0-9.]{0,98}[a-z0-9])?$"


class Part(BaseModel):
    """A part of a policy: frozen, closed to unknown keys, and silent about what it was given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=True
    )


class Refusal(ValueError):
    """A value that cannot be.

    ``path`` leads from the refused value to the part that is wrong; with ``beside`` it starts at the value's siblings.
    """

    def __init__(self, what: str, mend: str, path: Path = (), *, beside: bool = False) -> None:
        super().__init__(f"{what}; {mend}")
        self.what = what
        self.mend = mend
        self.path = path
        self.beside = beside


def shown(value: object) -> str:
    """``value`` as a message quotes it: short, and as the file has it."""
    match value:
        case bool():
            return "true" if value else "false"
        case Fraction():
            return decimal_text(value)
        case int():
            return str(value) if abs(value) < 10**30 else "a very long number"
        case str():
            return repr(value if len(value) <= 40 else value[:40] + "…")
        case dict():
            return "a map"
        case list() | tuple():
            return "a list"
        case _:
            return "nothing" if value is None else f"a {type(value).__name__}"


def decimal_text(number: Fraction) -> str:
    """``number`` exactly: as a decimal where it has one that ends, else as ``n/d``."""
    rest, powers = number.denominator, {2: 0, 5: 0}
    for prime in powers:
        while rest % prime == 0:
            rest //= prime
            powers[prime] += 1
    if rest != 1:
        return str(number)
    places = max(powers.values())
    sign, digits = "-" if number < 0 else "", str(abs(number) * 10**places).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def number_form(number: Fraction) -> int | float | str:
    """``number`` as JSON has it: a number where that stands for it exactly, else its text."""
    if number.denominator == 1:
        return number.numerator
    # The text that a float is written as is what it is read from again, here and in JSON.
    near = float(number)
    return near if Fraction(repr(near)) == number else decimal_text(number)


def read_number(text: str) -> Fraction | None:
    """The number that decimal ``text`` names, exactly; None: it names none, or one beyond all measure."""
    return Fraction(text) if _NUMBER.fullmatch(text) and not re.search(r"/0+$", text) else None


def _number(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    if isinstance(value, float) and math.isfinite(value):
        return Fraction(repr(value))
    number = read_number(value) if isinstance(value, str) else None
    if number is None:
        raise Refusal(f"{shown(value)} is not a number", "write a finite decimal number, like 0.65")
    return number


def _positive(number: Fraction) -> Fraction:
    if number <= 0:
        raise Refusal(f"{decimal_text(number)} is not above 0", "write a number above 0")
    return number


def _not_negative(number: Fraction) -> Fraction:
    if number < 0:
        raise Refusal(f"{decimal_text(number)} is below 0", "write 0 or more")
    return number


def _duration(value: object) -> timedelta:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as error:
            what, _, mend = str(error).partition("; ")
            raise Refusal(what, mend or "write it like 1h30m") from None
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise Refusal(f"'{format_duration(value)}' is negative", "write it like 1h30m")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value == 0:
            return timedelta(0)
        raise Refusal(f"{shown(value)} has no unit", f"write {shown(value)}s, {shown(value)}m or {shown(value)}h")
    raise Refusal(f"{shown(value)} is not a duration", "write it like 1h30m")


def _some_time(duration: timedelta) -> timedelta:
    if duration <= timedelta(0):
        raise Refusal("0s is too short", "write a duration above 0, like 30s")
    return duration


def _duration_or_none(value: object) -> timedelta | None:
    return None if value is None or value == "none" else _some_time(_duration(value))


def _identifier(value: str) -> str:
    if not re.match(_IDENTIFIER, value) or value.endswith("\n"):
        raise Refusal(f"{shown(value)} is not an id", "use letters, digits, '.', '_' and '-', as the cloud shows it")
    return value


def _currency(value: str) -> str:
    if not re.match(_CURRENCY, value) or value.endswith("\n"):
        raise Refusal(f"{shown(value)} is not a currency", "write its three capital letters, like CNY")
    return value


def _policy_name(value: str) -> str:
    if not is_policy_name(value):
        raise Refusal(
            f"{shown(value)} is not a policy name",
            "use up to 100 of a-z, 0-9, '-' and '.', with a letter or digit first and last",
        )
    return value


def is_policy_name(text: str) -> bool:
    """Whether ``text`` can name a policy in files, URLs, labels of metrics and command lines."""
    return bool(re.match(POLICY_NAME, text)) and not text.endswith("\n")


def _line(value: str) -> str:
    if not value.strip():
        raise Refusal("is empty", "write a name")
    if not value.isprintable() or len(value) > 100:
        raise Refusal("is not one short line", "use up to 100 printable characters")
    return value


def _file_path(value: str) -> str:
    if not value or not value.isprintable():
        raise Refusal("is not a path", "write the path of a file")
    return value


def _query(value: str) -> str:
    problem = promql.syntax_problem(value)
    if problem is not None:
        raise Refusal(problem, "write a PromQL expression that gives one number, like sum(live_sessions)")
    return value


def percent_text(ratio: Fraction) -> str:
    """``ratio`` as a percentage: ``10%``."""
    return f"{decimal_text(ratio * 100)}%"


def read_percent(text: str) -> Fraction | None:
    """The ratio that ``10%`` names; None: it is none."""
    number = read_number(text[:-1]) if text.endswith("%") else None
    return None if number is None or number < 0 else number / 100


HEADROOM_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _PERCENT}]
}

_NUMBER_FORM = PlainSerializer(number_form, when_used="json")
_DURATION_TEXT = PlainSerializer(format_duration, return_type=str, when_used="json")
_DURATION_SCHEMA: Final = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["1h30m"]}

Number = Annotated[Fraction, PlainValidator(_number), _NUMBER_FORM, WithJsonSchema({"type": "number"})]
PositiveNumber = Annotated[
    Fraction,
    PlainValidator(_number),
    AfterValidator(_positive),
    _NUMBER_FORM,
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]
NumberFromZero = Annotated[
    Fraction,
    PlainValidator(_number),
    AfterValidator(_not_negative),
    _NUMBER_FORM,
    WithJsonSchema({"type": "number", "minimum": 0}),
]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
PositiveCount = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Flag = Annotated[bool, Field(strict=True)]
Duration = Annotated[
    timedelta,
    PlainValidator(_duration),
    _DURATION_TEXT,
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"const": 0}]}),
]
PositiveDuration = Annotated[
    timedelta, PlainValidator(_duration), AfterValidator(_some_time), _DURATION_TEXT, WithJsonSchema(_DURATION_SCHEMA)
]
DurationOrNone = Annotated[
    timedelta | None,
    PlainValidator(_duration_or_none),
    PlainSerializer(lambda d: "none" if d is None else format_duration(d), return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"const": "none"}]}),
]
Identifier = Annotated[str, AfterValidator(_identifier), WithJsonSchema({"type": "string", "pattern": _IDENTIFIER})]
Currency = Annotated[str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": _CURRENCY})]
PolicyName = Annotated[str, AfterValidator(_policy_name), WithJsonSchema({"type": "string", "pattern": POLICY_NAME})]
Line = Annotated[str, AfterValidator(_line)]
FilePath = Annotated[str, AfterValidator(_file_path)]
Query = Annotated[str, AfterValidator(_query)]
