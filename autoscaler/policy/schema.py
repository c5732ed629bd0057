"""JSON Schema of a policy file, for editors.

It is made from the policies' own types, so it cannot say something else than the loader; what a file may leave to
``_shared.yaml`` or to a row of ``each`` is not required here, and the loader stays the judge.
"""

from typing import Any

from autoscaler.policy.fields import POLICY_NAME
from autoscaler.policy.values import Policy

_LEFT_TO_DEFAULTS = ("WorkerSpec", "Limits")
_PLACEHOLDER: dict[str, Any] = {"type": "string", "pattern": r"^\$\{[^{}]+\}$"}
_EACH: dict[str, Any] = {
    "description": "One policy per row, called <file>-<name>; ${key} in strings is replaced by the row's value.",
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {"name": {"anyOf": [{"type": "string", "pattern": POLICY_NAME}, {"type": "integer"}]}},
        "required": ["name"],
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
}


def json_schema() -> dict[str, Any]:
    """Schema (draft 2020-12) of a policy file as an operator writes it."""
    schema = Policy.model_json_schema(by_alias=True)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Autoscaler policy",
        "properties": {key: part for key, part in schema["properties"].items() if key != "name"},
    }
    schema.pop("required")
    for name in _LEFT_TO_DEFAULTS:
        schema["$defs"][name].pop("required")
    schema = _for_a_file(schema)
    schema["properties"]["each"] = _EACH
    return schema


def _for_a_file(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without null, which a file cannot hold, and with room for ``${key}`` in every value."""
    for container in ("properties", "$defs"):
        for name, part in schema.get(container, {}).items():
            schema[container][name] = _for_a_file(part)
    if "items" in schema:
        schema["items"] = _for_a_file(schema["items"])
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if options:
        schema["anyOf"] = [*options, _PLACEHOLDER]
        if len(options) == 1:
            schema = {**{key: value for key, value in schema.items() if key != "anyOf"}, **_for_a_file(options[0])}
    elif schema.get("type") in {"integer", "number", "boolean"} or "pattern" in schema or "enum" in schema:
        said: dict[str, Any] = {
            key: schema.pop(key) for key in ("description", "default", "title", "examples") if key in schema
        }
        schema = {**said, "anyOf": [schema, _PLACEHOLDER]}
    if schema.get("default", ...) is None:
        del schema["default"]
    return schema
