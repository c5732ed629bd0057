"""What the API takes, typed; what it means is judged where orders of every surface are."""

from datetime import timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainValidator, StrictInt, WithJsonSchema

from autoscaler.duration import PATTERN, parse_duration
from autoscaler.model import LARGEST_ID, OverrideKind
from autoscaler.override import Asked

Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Length = Annotated[
    timedelta,
    PlainValidator(lambda value: parse_duration(value) if isinstance(value, str) else _refuse(value)),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "maxLength": 64}),
]


def _refuse(_: object) -> timedelta:
    raise ValueError("write it as 30m, 2h or 1d")


class OrderForm(BaseModel):
    """An order as it is asked for; its author is the token's. Say either `for` or `until`."""

    model_config = ConfigDict(extra="forbid")

    kind: OverrideKind
    policies: list[str] = Field(
        description="Names, globs, labels as team=live; * is all.", examples=[["*"]], max_length=1000
    )
    workers: StrictInt | None = Field(
        default=None, description="Of floor, cap and buy; a buy is so many for each policy."
    )
    reason: str
    lasts: Length | None = Field(default=None, alias="for", description="How long.", examples=["2h"])
    until: AwareDatetime | None = Field(default=None, description="Up to when.")

    def asked(self, author: str) -> Asked:
        """The order, in somebody's name."""
        return Asked(self.kind, tuple(self.policies), self.workers, author, self.reason, self.lasts, self.until)


class ReasonForm(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str


class SettleForm(ReasonForm):
    """What became of a purchase of unknown outcome."""

    bought: StrictInt = Field(ge=0, le=LARGEST_ID, description="So many workers were bought; 0: none.")
