"""The body of a ScaleOutCluster request, validated field by field as the API's table of fields says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autoscaler.sandbox.refusals import Refusal, Shape

REDACTED = "(redacted)"
SPECIAL = set("()`~!@#$%^&*-_+=|{}[]:;'<>,.?/")


@dataclass(frozen=True, slots=True)
class OrderForm:
    """What a sale needs to know of an order."""

    count: int
    instance_type: str
    months: int = 1
    renews_every: int | None = None  # months; None: it does not renew itself
    shown: Mapping[str, object] = field(default_factory=dict)  # the body as it was sent, the password redacted


def parse_order(content_type: str | None, body: bytes) -> OrderForm:
    """The order in a request.

    Raises ``Refusal`` for the first field that is missing, unknown, of the wrong type or out of range.
    """
    if (content_type or "").split(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "415", "Unsupported Media Type", Shape.TEXT)
    try:
        order = json.loads(body)
    except ValueError:
        raise Refusal(400, "InvalidParameter.Body", "The body is not JSON.") from None
    if not isinstance(order, dict):
        raise Refusal(400, "InvalidParameter.Body", "The body is not an object.")
    required = dict(REQUIRED)
    if order.get("worker_auto_renew") is True:
        required["worker_auto_renew_period"] = OPTIONAL["worker_auto_renew_period"]
    for name in required:
        if name not in order:
            raise Refusal(400, f"MissingParameter.{name}", f"The parameter {name} is required.")
    valid = {**REQUIRED, **OPTIONAL}
    for name, value in order.items():
        if name not in valid or not valid[name](value):
            raise Refusal(400, f"InvalidParameter.{name}", f"The parameter {name} is invalid.")
    return OrderForm(
        count=order["count"],
        instance_type=order["worker_instance_type"],
        months=order["worker_period"],
        renews_every=order["worker_auto_renew_period"] if order.get("worker_auto_renew") else None,
        shown={name: REDACTED if name == "login_password" else value for name, value in order.items()},
    )


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


def _one_of(*allowed: object) -> Callable[[object], bool]:
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def _at_least(least: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and value >= least


def _password(value: object) -> bool:
    if not isinstance(value, str) or not 8 <= len(value) <= 30:
        return False
    kinds = (str.isupper, str.islower, str.isdigit, SPECIAL.__contains__)
    return sum(any(kind(letter) for letter in value) for kind in kinds) >= 3


REQUIRED: Mapping[str, Callable[[object], bool]] = {
    "count": _at_least(1),
    "worker_instance_type": _text,
    "ens_region_id": _text,
    "worker_image_id": _text,
    "ens_internet_charge_type": _one_of("BandwidthByDay", "95BandwidthByMonth"),
    "worker_period": _one_of(*range(1, 10), 12),
    "login_password": _password,
    "worker_system_disk_size": _one_of(*range(20, 101, 10)),
    "is_edge_worker": _one_of(True),
}
OPTIONAL: Mapping[str, Callable[[object], bool]] = {
    "worker_data_disk_size": _one_of(0, *range(20, 201, 10)),
    "worker_auto_renew": _boolean,
    "worker_auto_renew_period": _one_of(*range(1, 13)),
    "timeout_mins": _at_least(1),
}
