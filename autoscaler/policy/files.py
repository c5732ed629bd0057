"""Loading policy files: a folder in; policies, shared parts and every problem of every file out.

Each file becomes a tree that remembers its lines (``document``). Rows of ``each`` are filled in, ``defaults`` of
``_shared.yaml`` laid under it, shared budgets put in place, and only then is it judged, so that each problem and each
value can be traced to the line that somebody wrote. A file with an error gives no policies at all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from autoscaler.policy.document import LARGEST_FILE, Node, Place, Problem, Severity, merged, quoted, read_document
from autoscaler.policy.each import filled, rows, unfilled
from autoscaler.policy.fields import Part, is_policy_name
from autoscaler.policy.review import Finding, clashes, doubts
from autoscaler.policy.server import PrometheusServer
from autoscaler.policy.values import Budget, Policy
from autoscaler.policy.words import problem_at, schema_problems, unknown_key

__all__ = ["Loaded", "Origin", "OriginKind", "Problem", "Severity", "Shared", "expanded", "load_policies"]

SHARED_FILE: Final = "_shared.yaml"
_SUFFIXES: Final = frozenset({".yaml", ".yml"})
_SETTINGS_SERVER: Final = "default"  # described by the settings, so it is always there

P = TypeVar("P", bound=Part)


class OriginKind(StrEnum):
    """Who said a value."""

    FILE = "file"
    SHARED = "shared"
    ROW = "row"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value of an expanded policy came from."""

    kind: OriginKind
    file: str | None = None  # None: a default
    line: int | None = None
    row: str | None = None  # the each row that filled it in

    def __str__(self) -> str:
        if self.kind is OriginKind.DEFAULT:
            return "default"
        return f"{self.file}:{self.line}" + (f" (row {self.row})" if self.row is not None else "")


@dataclass(frozen=True, slots=True)
class Shared:
    """What ``_shared.yaml`` offers by name."""

    budgets: Mapping[str, Budget] = field(default_factory=lambda: MappingProxyType({}))
    prometheus: Mapping[str, PrometheusServer] = field(default_factory=lambda: MappingProxyType({}))  # but for default


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder of policy files came to."""

    policies: tuple[Policy, ...]  # those of files without an error, by name
    shared: Shared
    problems: tuple[Problem, ...]  # by file and line
    policies_by_file: Mapping[str, tuple[Policy, ...]]  # the same policies; a file with an error is not in it
    origins: Mapping[str, Mapping[str, Origin]]  # policy name -> dotted path -> where it was written

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may be."""
        return all(problem.severity is not Severity.ERROR for problem in self.problems)

    def origin(self, policy: str, path: str) -> Origin:
        """Where the value on a dotted path of ``expanded(policy)`` came from. Raises KeyError for an unknown policy."""
        return self.origins[policy].get(path, Origin(OriginKind.DEFAULT))


def load_policies(source: str | Path | Sequence[str | Path]) -> Loaded:
    """Reads, expands and judges policy files; never raises for what is in them.

    ``source`` is a folder, or files and folders. Only policies that are loaded together are judged beside each other,
    and ``_shared.yaml`` is the one in their folder, so all have to be of one folder.
    """
    load = _Load()
    load.run([Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source])
    return load.result()


def expanded(policy: Policy) -> dict[str, Any]:
    """``policy`` in the form of its file, with every default and shared value in place and ``each`` resolved."""
    form: dict[str, Any] = _without_nothing(policy.model_dump(mode="json", exclude={"name"}))
    return form


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nothing(part) for key, part in value.items() if part is not None}
    return [_without_nothing(part) for part in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Draft:
    """A policy as a tree, before it is judged."""

    name: str
    file: str
    tree: Node


class _Load:
    """One loading: the problems found so far, and what they rest on."""

    def __init__(self) -> None:
        self._problems: dict[tuple[object, ...], Problem] = {}
        self._broken: set[str] = set()  # files that give no policies
        self._defaults: Node | None = None
        self._shared_budgets: dict[str, Node] = {}
        self._known_servers: set[str] = {_SETTINGS_SERVER}
        self._shared = Shared()
        self._shared_broken = False
        self._drafts: dict[str, _Draft] = {}
        self._policies: dict[str, Policy] = {}

    def run(self, sources: list[Path]) -> None:
        named = self._find(sources)
        folders = {file.parent for file in named}
        files = [file for file in named if file.name != SHARED_FILE]
        if len(folders) > 1:
            mend = "load one folder at a time"
            self._report(Problem(str(named[0]), None, None, "", "is not in the same folder as the others", mend))
            return
        for folder in folders:
            if (folder / SHARED_FILE).exists():
                self._read_shared(folder / SHARED_FILE)
        for file in files:
            self._read_policies(file)
        for draft in list(self._drafts.values()):
            policy = self._judged(draft)
            if policy is not None:
                self._policies[policy.name] = policy
        for finding in clashes(self._policies.values()):
            self._report_finding(finding)
        for policy in self._policies.values():
            for finding in doubts(policy):
                self._report_finding(finding)

    def result(self) -> Loaded:
        by_file: dict[str, list[Policy]] = {}
        for name in sorted(self._policies):
            file = self._drafts[name].file
            if file not in self._broken and not self._shared_broken:
                by_file.setdefault(file, []).append(self._policies[name])
        good = sorted((policy for policies in by_file.values() for policy in policies), key=lambda policy: policy.name)
        return Loaded(
            policies=tuple(good),
            shared=self._shared,
            problems=tuple(sorted(self._problems.values(), key=_reading_order)),
            policies_by_file=MappingProxyType({file: tuple(policies) for file, policies in by_file.items()}),
            origins=MappingProxyType({policy.name: _origins(self._drafts[policy.name].tree) for policy in good}),
        )

    # Files

    def _find(self, sources: list[Path]) -> list[Path]:
        files: dict[Path, None] = {}
        for source in sources:
            if source.is_dir():
                inside = sorted(path for path in source.iterdir() if _holds_policies(path))
                if not inside:
                    what, mend = "holds no policy files", "write one, or name another folder"
                    self._report(Problem(str(source), None, None, "", what, mend, Severity.WARNING))
                files.update(dict.fromkeys(inside))
            elif source.is_file():
                files[source] = None
            else:
                self._report(Problem(str(source), None, None, "", "does not exist", "name a policy file or a folder"))
        return list(files)

    def _read(self, path: Path) -> Node | None:
        try:
            with path.open("rb") as stream:
                content = stream.read(LARGEST_FILE + 1)
        except OSError as error:
            what, mend = f"cannot be read: {error.strerror}", "make it a file that the autoscaler may read"
            self._report(Problem(str(path), None, None, "", what, mend))
            return None
        tree, problems = read_document(str(path), content)
        for problem in problems:
            self._report(problem)
        if tree is not None and not isinstance(tree.value, dict):
            self._report(tree.place.problem(f"{quoted(tree)} is not a map", "write key: value pairs"))
            return None
        return tree

    # _shared.yaml

    def _read_shared(self, path: Path) -> None:
        tree = self._read(path)
        self._shared_broken = str(path) in self._broken
        if tree is None:
            return
        for problem in unfilled(tree, "write the value; only a file's own strings are filled in from its each"):
            self._report(problem)
        known = ["defaults", "budgets", "prometheus"]
        for key, node in tree.items.items():
            if key not in known:
                self._report(unknown_key(tree, key, known))
            elif not isinstance(node.value, dict | None):
                self._report(node.place.problem(f"{quoted(node)} is not a map", "write key: value pairs under it"))
        self._defaults = self._read_defaults(tree)
        budgets = self._read_named(tree.items.get("budgets"), Budget, "shared")
        servers = self._read_named(tree.items.get("prometheus"), PrometheusServer, _SETTINGS_SERVER)
        self._shared = Shared(MappingProxyType(budgets), MappingProxyType(servers))
        self._shared_broken = str(path) in self._broken

    def _read_defaults(self, tree: Node) -> Node | None:
        defaults = tree.items.get("defaults")
        if defaults is None:
            return None
        for key in ("name", "each"):
            if key in defaults.items:
                self._report(defaults.items[key].place.problem("cannot be a default", "remove it"))
        kept = {key: node for key, node in defaults.items.items() if key not in {"name", "each"}}
        return Node(defaults.place, kept)

    def _read_named(self, tree: Node | None, model: type[P], refused: str) -> dict[str, P]:
        values: dict[str, P] = {}
        for name, node in (tree.items if tree is not None else {}).items():
            if model is Budget:
                self._shared_budgets[name] = node
            else:
                self._known_servers.add(name)
            if model is PrometheusServer and name == refused:
                mend = "give it another name; the settings AUTOSCALER_PROMETHEUS_… describe default"
                self._report(node.place.problem("is described by the settings", mend))
            elif model is Budget and refused in node.items:
                self._report(node.items[refused].place.problem("is not for a shared budget itself", "remove it"))
            elif node.value is not None:
                value = self._validated(model, node, node.plain())
                if value is not None:
                    values[name] = value
        return values

    # Policy files

    def _read_policies(self, path: Path) -> None:
        file = str(path)
        if not is_policy_name(path.stem):
            mend = "rename it: a-z, 0-9, '-' and '.', with a letter or digit first and last"
            self._report(Problem(file, None, None, "", f"{path.stem!r} is not a policy name", mend))
        tree = self._read(path)
        if tree is None:
            return
        if "name" in tree.items:
            mend = "remove it; the file's name, without .yaml, is the policy's"
            self._report(tree.items["name"].place.problem("is not a key of a policy file", mend))
        each = tree.items.get("each")
        template = replace(tree, value={key: node for key, node in tree.items.items() if key not in {"name", "each"}})
        problems: list[Problem] = []
        if each is None:
            problems.extend(unfilled(template, "write the value, or give the file rows by each"))
            self._add(_Draft(path.stem, file, template), template.place)
        else:
            for name, row in rows(each, path.stem, problems):
                self._add(_Draft(name, file, filled(template, row.items, problems)), row.place)
        for problem in problems:
            self._report(problem)

    def _add(self, draft: _Draft, place: Place) -> None:
        other = self._drafts.get(draft.name)
        if other is not None:
            where = "this file" if other.file == draft.file else other.file
            self._report(place.problem(f"makes policy {draft.name!r} a second time, after {where}", "rename one"))
            self._broken.add(other.file)
            return
        self._drafts[draft.name] = draft

    # Judging

    def _judged(self, draft: _Draft) -> Policy | None:
        tree = draft.tree if self._defaults is None else merged(self._defaults, draft.tree)
        tree = self._with_shared_budgets(tree, draft)
        self._drafts[draft.name] = replace(draft, tree=tree)
        server = tree.items.get("prometheus")
        if server is not None and isinstance(server.value, str) and server.value not in self._known_servers:
            mend = f"write one of {', '.join(sorted(self._known_servers))}, or add it to {SHARED_FILE}"
            self._report(server.place.problem(f"{quoted(server)} is not a known server", mend), draft.file)
        return self._validated(Policy, tree, {"name": draft.name, **tree.plain()}, draft.file)

    def _with_shared_budgets(self, tree: Node, draft: _Draft) -> Node:
        limits = tree.items.get("limits")
        budgets = limits.items.get("budgets") if limits is not None else None
        if limits is None or budgets is None or not isinstance(budgets.value, list):
            return tree
        filled = [self._filled_budget(node, draft) for node in budgets.value]
        kept = replace(budgets, value=[node for node in filled if node is not None])
        return replace(tree, value={**tree.items, "limits": replace(limits, value={**limits.items, "budgets": kept})})

    def _filled_budget(self, node: Node, draft: _Draft) -> Node | None:
        """A budget with the numbers of the shared one that it names; None: it names one that cannot be used."""
        named = node.items.get("shared")
        if named is None or named.value is None:
            return node
        if len(node.items) > 1:
            what, mend = "stands beside numbers of its own", "keep shared alone, or the numbers alone"
            self._report(named.place.problem(what, mend), draft.file)
            return None
        name = named.value
        if not isinstance(name, str) or name not in self._shared_budgets:
            known = ", ".join(sorted(self._shared_budgets)) or "no budget so far"
            what = f"{quoted(named)} is not a shared budget"
            self._report(named.place.problem(what, f"add it to {SHARED_FILE}, which has {known}"), draft.file)
            return None
        if name not in self._shared.budgets:
            self._broken.add(draft.file)  # what is wrong with it was said where it is written
            return None
        return replace(node, value={**self._shared_budgets[name].items, **node.items})

    def _validated(self, model: type[P], tree: Node, form: Any, file: str | None = None) -> P | None:
        try:
            return model.model_validate(form)
        except ValidationError as error:
            for problem in schema_problems(model, tree, error):
                self._report(problem, file)
            if file is not None:
                self._broken.add(file)
            return None

    def _report_finding(self, finding: Finding) -> None:
        draft = self._drafts[finding.policy]
        problem = problem_at(draft.tree, finding.path, finding.what, finding.mend)
        self._report(replace(problem, severity=finding.severity), draft.file)

    def _report(self, problem: Problem, user: str | None = None) -> None:
        """Keeps ``problem``, which breaks its own file and that of its ``user`` if it is an error.

        A thousand rows or policies meet the same line; what it does wrong is said once.
        """
        self._problems.setdefault((problem.file, problem.line, problem.column, problem.field, problem.mend), problem)
        if problem.severity is Severity.ERROR:
            self._broken.update({problem.file} if user is None else {user})


def _holds_policies(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(("_", ".")) and not path.is_dir()


def _reading_order(problem: Problem) -> tuple[str, int, int, str]:
    return problem.file, problem.line or 0, problem.column or 0, problem.field


def _origins(tree: Node) -> Mapping[str, Origin]:
    return MappingProxyType(dict(_leaf_origins(tree.walk())))


def _leaf_origins(nodes: Iterable[tuple[str, Node]]) -> Iterator[tuple[str, Origin]]:
    for path, node in nodes:
        if not isinstance(node.value, dict | list):
            place = node.place
            kind = OriginKind.SHARED if Path(place.file).name == SHARED_FILE else OriginKind.FILE
            kind = OriginKind.ROW if place.row is not None else kind
            yield path, Origin(kind, place.file, place.line, place.row)
