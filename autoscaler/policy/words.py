"""A schema's refusals in an operator's words: what is wrong, and the mend.

The schema library says "Input should be a valid integer"; here it becomes the value, the field's line and what to
write instead. Its own text and the input it carries are never passed on.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from autoscaler.policy.checks import PerWorker, Schedule, Setpoint, Step, Steps, Window
from autoscaler.policy.document import Node, Problem, quoted
from autoscaler.policy.fields import Path, Refusal
from autoscaler.policy.values import Budget, CapacityQuery, Limits, Policy, WorkerSpec

STRATEGIES: Final[Mapping[str, type[BaseModel]]] = {
    "setpoint": Setpoint,
    "per_worker": PerWorker,
    "steps": Steps,
    "schedule": Schedule,
}
PARTS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): Policy,
    ("worker",): WorkerSpec,
    ("capacity",): CapacityQuery,
    ("limits",): Limits,
    ("limits", "budgets"): Budget,
    ("checks", "steps"): Step,
    ("checks", "windows"): Window,
}
_NOT_YOURS: Final = {
    "count": ("is decided by the autoscaler", "remove it; limits.per_action bounds a purchase"),
    "is_edge_worker": ("is always true and sent by the autoscaler", "remove it"),
}
_WRONG_TYPE: Final = {
    "int_type": ("is not a whole number", "write a whole number, without quotes"),
    "bool_type": ("is not true or false", "write true or false, without quotes"),
    "string_type": ("is not a text", "put it in quotes"),
    "model_type": ("is not a map", "write key: value pairs under it"),
    "model_attributes_type": ("is not a map", "write key: value pairs under it"),
    "dict_type": ("is not a map", "write key: value pairs under it"),
    "tuple_type": ("is not a list", "write its items below it, each after '- '"),
    "too_short": ("is empty", "give it one item or more"),
}


def schema_problems(model: type[BaseModel], tree: Node, error: ValidationError) -> Iterator[Problem]:
    """What ``error`` says of ``tree``, which was to become a ``model``; each problem where its value was written."""
    for detail in error.errors(include_url=False, include_input=False):
        problem = _problem(model, tree, detail["type"], detail["loc"], detail.get("ctx", {}))
        if problem is not None:
            yield problem


def problem_at(tree: Node, path: Path, what: str, mend: str) -> Problem:
    """A problem with the part of ``tree`` on ``path``, or with its absence."""
    node, beyond = tree.at(path)
    problem = node.place.problem(what, mend)
    field = problem.field
    for part in () if node.secret else beyond:
        field = f"{field}[{part}]" if isinstance(part, int) else f"{field}.{part}".lstrip(".")
    return Problem(problem.file, problem.line, problem.column, field, problem.what, mend, problem.severity)


def unknown_key(node: Node, key: str, known: list[str], elsewhere: str = "") -> Problem:
    """A problem with a key that means nothing where it stands."""
    near = difflib.get_close_matches(key, known, n=1)
    if elsewhere:
        mend = elsewhere
    elif near:
        mend = f"write {near[0]}, or remove it"
    else:
        mend = f"remove it; known here: {', '.join(known)}"
    return node.items[key].place.problem("is not a known key", mend)


def _problem(model: type[BaseModel], tree: Node, kind: str, loc: Path, context: Mapping[str, Any]) -> Problem | None:
    strategy = None
    if model is Policy and len(loc) > 2 and loc[0] == "checks":
        # After the index the schema names the strategy, which is no part of the file's path.
        strategy, loc = str(loc[2]), (*loc[:2], *loc[3:])
    if model is Policy and loc == ("name",):
        return None  # made of file and row names, which are judged where they are read
    node, beyond = tree.at(loc)
    if kind == "default_factory_not_called" or (beyond and kind != "missing" and not _is_refusal(context)):
        return None  # follows from another problem
    if node.value is None or (kind == "too_short" and node.value != []):
        return None  # said already: it has no value, or its parts are wrong
    refusal = context.get("error")
    if isinstance(refusal, Refusal):
        path = (*(loc[:-1] if refusal.beside else loc), *refusal.path)
        return problem_at(tree, path, refusal.what, refusal.mend)
    if kind == "extra_forbidden":
        return _unknown(model, tree, loc, strategy)
    if kind == "missing":
        return None if _left_empty(tree, loc) else _missing(model, tree, loc, strategy)
    if kind == "union_tag_not_found":
        what, mend = "has no strategy", f"add strategy: {' or '.join(STRATEGIES)}"
        if not isinstance(node.value, dict):
            what, mend = f"{quoted(node)} is not a map", "write key: value pairs under it"
        return problem_at(tree, loc, what, mend)
    if kind == "union_tag_invalid":
        return problem_at(tree, (*loc, "strategy"), *_one_of(node.items["strategy"], list(STRATEGIES)))
    return problem_at(tree, loc, *_said(node, kind, context))


def _is_refusal(context: Mapping[str, Any]) -> bool:
    return isinstance(context.get("error"), Refusal)


def _said(node: Node, kind: str, context: Mapping[str, Any]) -> tuple[str, str]:
    value = quoted(node)
    match kind:
        case "literal_error":
            return _one_of(
                node, [option.strip("'") for option in context["expected"].replace(" or ", ", ").split(", ")]
            )
        case "greater_than_equal":
            return f"{value} is too small", f"write {context['ge']} or more"
        case "less_than_equal":
            return f"{value} is too large", f"write {context['le']} or less"
        case "multiple_of":
            return f"{value} is not a multiple of {context['multiple_of']}", f"round it to {context['multiple_of']}s"
    what, mend = _WRONG_TYPE.get(kind, ("is not possible here", "compare it with `autoscaler check --schema`"))
    return (what if kind == "too_short" else f"{value} {what}"), mend


def _one_of(node: Node, options: list[str]) -> tuple[str, str]:
    near = difflib.get_close_matches(node.text, options, n=1)
    mend = f"write {near[0]}" if near else f"write {' or '.join(options)}"
    return f"{quoted(node)} is not one of {', '.join(options)}", mend


def _unknown(model: type[BaseModel], tree: Node, loc: Path, strategy: str | None) -> Problem:
    parent, key = tree.at(loc[:-1])[0], str(loc[-1])
    if key in _NOT_YOURS:
        return parent.items[key].place.problem(*_NOT_YOURS[key])
    part = _part(model, loc[:-1], strategy)
    known = list(part.model_fields)
    if part is Policy:
        known[known.index("name")] = "each"  # the name is the file's
    return unknown_key(parent, key, known, _elsewhere(loc, strategy) if model is Policy else "")


def _elsewhere(loc: Path, strategy: str | None) -> str:
    """Where a key belongs that is known, only not here."""
    key = loc[-1]
    if strategy is not None and len(loc) == 3:
        fitting = [name for name, check in STRATEGIES.items() if key in check.model_fields]
        return f"remove it; it goes with strategy {' or '.join(fitting)}" if fitting else ""
    if len(loc) == 1:
        for path, part in PARTS.items():
            if len(path) == 1 and key in part.model_fields:
                return f"move it under {path[0]}"
    return ""


def _missing(model: type[BaseModel], tree: Node, loc: Path, strategy: str | None) -> Problem:
    key = str(loc[-1])
    examples = _part(model, loc[:-1], strategy).model_fields[key].examples
    example = f", like {key}: {examples[0]}" if examples else ""
    return problem_at(tree, loc, "is missing", f"add it{example}")


def _left_empty(tree: Node, loc: Path) -> bool:
    node, beyond = tree.at(loc)
    return not beyond and node.value is None


def _part(model: type[BaseModel], loc: Path, strategy: str | None) -> type[BaseModel]:
    names = tuple(part for part in loc if isinstance(part, str))
    if model is not Policy:
        for name in names:
            model = next(_models(model.model_fields[name].annotation), model)
        return model
    return STRATEGIES[strategy] if names == ("checks",) and strategy is not None else PARTS[names]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The schemas that a field's annotation names: one in ``tuple[Step, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
