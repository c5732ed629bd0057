"""A policy in full, as YAML: every default and shared value in place, and beside each value where it was written."""

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from autoscaler.policy import Policy
from autoscaler.policy.files import Loaded, OriginKind, expanded

_COMMENT_COLUMN = 56
_UNBROKEN = 10_000  # columns; a query on two lines would have its comment in the middle


def expansion(policy: Policy, loaded: Loaded) -> str:
    """One YAML document, headed by the policy's name."""
    yaml = YAML()
    yaml.width = _UNBROKEN
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(_commented(expanded(policy), "", policy, loaded), text)
    return f"# {policy.name}\n{text.getvalue()}"


def _commented(value: Any, path: str, policy: Policy, loaded: Loaded) -> Any:
    """``value``, with a trailing comment at each scalar in it."""
    if isinstance(value, dict) and value:
        parts = {key: (f"{path}.{key}" if path else key, part) for key, part in value.items()}
        told: CommentedMap | CommentedSeq = CommentedMap(
            (key, _commented(part, below, policy, loaded)) for key, (below, part) in parts.items()
        )
        items = [(key, below, part) for key, (below, part) in parts.items()]
    elif isinstance(value, list) and value:
        items = [(index, f"{path}[{index}]", part) for index, part in enumerate(value)]
        told = CommentedSeq(_commented(part, below, policy, loaded) for _, below, part in items)
    else:
        return value
    for key, below, part in items:
        if not isinstance(part, dict | list) or not part:
            told.yaml_add_eol_comment(_origin(below, policy, loaded), key, column=_COMMENT_COLUMN)
    return told


def _origin(path: str, policy: Policy, loaded: Loaded) -> str:
    origin = loaded.origin(policy.name, path)
    if origin.kind is OriginKind.DEFAULT or origin.file is None:
        return "default"
    return str(origin).replace(origin.file, Path(origin.file).name, 1)
