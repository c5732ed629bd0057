"""The layering, kept by reading every module's syntax: who may import whom, who may know the time, how long one may be.

A module is found in the tables below by the longest dotted prefix of its name under ``autoscaler``, so that
``ledger`` speaks for all of ``ledger.tables`` too. A new module needs a place in them: that is the moment to ask which.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "autoscaler"

# Layer: its modules.
LAYERS = {
    "core": {
        *("model", "duration", "months", "promql", "policy", "strategy"),
        *("purchase", "budget", "supply", "facts", "restoral", "rules", "decision", "override"),
    },
    "prometheus": {"prometheus"},
    "cloud": {"cloud", "signing", "credentials"},
    "ledger": {"ledger"},
    "clock": {"clock"},
    "secret": {"secret"},
    "shell": {"controller", "purchasing", "settling", "leases", "catalog", "threads"},
    "oncall": {"effects", "orders", "overview"},
    "simulation": {"simulation"},
    "sandbox": {"sandbox"},
    "settings": {"settings", "setting_values"},
    "report": {"logs", "metrics", "slots"},
    "charts": {"charts"},
    "web": {"web"},
    "wiring": {"wiring"},
    "daemon": {"daemon"},
    "cli": {"cli", "__main__", "demo"},
}

VALUES = {"core", "clock", "secret"}
EDGES = {"prometheus", "cloud", "ledger"}
BUILDING = {*VALUES, *EDGES, "shell", "oncall", "settings", "report"}

# Layer: the other layers it may import.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "prometheus": VALUES,
    "cloud": VALUES,
    "ledger": VALUES,
    "clock": set(),
    "secret": {"core"},
    "shell": {"core", "clock"},
    "oncall": {"core"},
    "simulation": {"core", "clock", "shell", "ledger"},
    "sandbox": {"core", "clock"},  # no edge: a fake of the outside that shared its code would share its mistakes
    "settings": VALUES,
    "report": {"core", "clock"},
    "charts": set(),
    "web": {"core", "clock", "report", "oncall", "charts"},
    "wiring": {*BUILDING, "web"},
    "daemon": {*BUILDING, "web", "wiring"},
    "cli": {*BUILDING, "simulation", "sandbox", "charts", "web", "wiring", "daemon"},
}

# What values in, values out needs. Anything else in the core is a way to reach the world.
CORE_LIBRARIES = {
    *("annotated_types", "bisect", "calendar", "collections", "cronsim", "dataclasses", "datetime", "decimal"),
    *("difflib", "enum", "fnmatch", "fractions", "functools", "hashlib", "itertools", "json", "math", "operator"),
    *("promql_parser", "pydantic", "pydantic_core", "re", "string", "types", "typing", "urllib.parse", "zoneinfo"),
}
FILE_LIBRARIES = {"io", "os", "pathlib", "ruamel", "warnings"}
FILE_READERS = {"policy.document", "policy.files"}  # they read the files that policies come from

# Library: the only layers that know it.
OWNERS = {
    "alembic": {"ledger"},
    "alibabacloud_credentials": {"cloud"},
    "apscheduler": {"daemon"},
    "fastapi": {"web"},
    "httpx": {"cloud"},
    "prometheus_api_client": {"prometheus"},
    "prometheus_client": {"report", "web", "wiring"},
    "pydantic_settings": {"settings"},
    "pygal": {"charts"},
    "requests": {"prometheus"},
    "rich": {"cli"},
    "sqlalchemy": {"ledger"},
    "starlette": {"web"},
    "uvicorn": {"web"},
}

WALL_CLOCKS = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
}
CLOCK_BUILDERS = {"clock"}

DRY_RUN_BRANCHES = {
    "catalog": "the setting makes every policy a dry run",
    "wiring": "chooses the collaborator, so that nobody else has to ask",
    "policy.review": "a policy that buys is warned about what another may do",
    "daemon": "a policy that buys does not start over a ledger that was lost",
    "ledger.agreement": "what was imagined is history for a dry-run policy alone",
}

LONGEST = 400  # lines
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "misc", "manager", "managers"}


def name_of(path: Path) -> str:
    """``ledger.tables`` for autoscaler/ledger/tables.py; a package is called as its folder, the root ``autoscaler``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "autoscaler"


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), path) for name, path in MODULES.items()}


def prefixes(name: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def layer_of(name: str) -> str | None:
    """The layer whose row names the longest prefix of the module; None: no row does."""
    for prefix in prefixes(name):
        for layer, modules in LAYERS.items():
            if prefix in modules:
                return layer
    return None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported anywhere in a module, within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"write imports in full: line {node.lineno}, from {'.' * node.level}{node.module or ''}"
            )
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def own_imports(tree: ast.AST, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and module, under ``autoscaler``, of each import of the product's own."""
    for line, imported in imports(tree):
        if imported.startswith("autoscaler."):
            known = [prefix for prefix in prefixes(imported.removeprefix("autoscaler.")) if prefix in modules]
            if known:
                yield line, known[0]


def foreign_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of each import that is not the product's own."""
    return ((line, name) for line, name in imports(tree) if name.split(".")[0] != "autoscaler")


def wall_clock_calls(tree: ast.AST) -> Iterator[int]:
    """Lines that read the wall clock, or hand somebody the function that does, whatever it was imported as."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(node).partition(".")
            if ".".join(filter(None, (aliases.get(first, first), rest))) in WALL_CLOCKS:
                yield node.lineno


def dry_run_branches(tree: ast.AST) -> Iterator[int]:
    """Lines that branch on ``dry_run``."""
    for node in ast.walk(tree):
        conditions = node.ifs if isinstance(node, ast.comprehension) else [getattr(node, "test", None)]
        for condition in filter(None, conditions):
            names = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(condition)}
            if "dry_run" in names:
                yield condition.lineno


def at(name: str, line: int) -> str:
    return f"{MODULES[name].relative_to(ROOT.parent)}:{line}"


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [name for name in MODULES if name != "autoscaler" and layer_of(name) is None]
    assert not homeless, ", ".join(homeless)


def test_a_module_imports_only_what_its_layer_may() -> None:
    found = [
        f"{at(name, line)}: {layer_of(name)} imports {imported}, which is of {layer_of(imported)}"
        for name, tree in TREES.items()
        for line, imported in own_imports(tree, set(MODULES))
        if (mine := layer_of(name)) and (other := layer_of(imported)) and other not in {mine, *MAY_IMPORT[mine]}
    ]
    assert not found, "\n".join(found)


def test_no_two_modules_import_each_other() -> None:
    graph = {
        name: {imported for _, imported in own_imports(tree, set(MODULES)) if imported != name}
        for name, tree in TREES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_core_imports_nothing_that_reaches_the_world() -> None:
    found = [
        f"{at(name, line)}: {imported}"
        for name, tree in TREES.items()
        if layer_of(name) == "core"
        for line, imported in foreign_imports(tree)
        if not {*prefixes(imported)} & (CORE_LIBRARIES | FILE_LIBRARIES if name in FILE_READERS else CORE_LIBRARIES)
    ]
    assert not found, "\n".join(found)


def test_a_library_is_known_to_its_owner_alone() -> None:
    found = [
        f"{at(name, line)}: {imported}"
        for name, tree in TREES.items()
        for line, imported in foreign_imports(tree)
        if layer_of(name) not in OWNERS.get(imported.split(".")[0], {layer_of(name)})
    ]
    assert not found, "\n".join(found)


def test_the_wall_clock_is_read_only_where_a_clock_is_built() -> None:
    found = [
        at(name, line)
        for name, tree in TREES.items()
        if not {*prefixes(name)} & CLOCK_BUILDERS
        for line in wall_clock_calls(tree)
    ]
    assert not found, "\n".join(found)


def test_only_wiring_asks_whether_this_is_a_dry_run() -> None:
    found = [
        at(name, line)
        for name, tree in TREES.items()
        if not {*prefixes(name)} & DRY_RUN_BRANCHES.keys()
        for line in dry_run_branches(tree)
    ]
    assert not found, "\n".join(found)


def test_a_module_is_short_enough_to_hold_one_idea() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_a_module_says_in_its_name_what_it_is() -> None:
    assert [name for name in MODULES if VAGUE_NAMES & set(name.replace("_", ".").split("."))] == []


def test_a_module_says_first_what_it_is_for() -> None:
    bare = [name for name, tree in TREES.items() if "versions" not in name and not ast.get_docstring(tree)]
    assert bare == []


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    script = (
        "import sys; from autoscaler.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('imported:', *sorted({'fastapi', 'sqlalchemy', 'pydantic', 'httpx', 'requests'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1:] == ["imported:"], done.stderr


def test_policies_are_tested_in_a_commit_hook_and_so_wait_for_no_database() -> None:
    script = (
        "import sys; from autoscaler.cli import main\n"
        f"try: main(['test', {str(ROOT.parent / 'policies' / 'tests')!r}])\n"
        "except SystemExit as end: print(end.code, *sorted({'fastapi', 'sqlalchemy', 'requests'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["0"], done.stderr


@pytest.mark.parametrize(
    ("see", "source", "lines"),
    [
        pytest.param(wall_clock_calls, "from datetime import datetime\ndatetime.now()", [2], id="a call is seen"),
        pytest.param(wall_clock_calls, "import datetime as dt\n\ndt.datetime.now()", [3], id="through another name"),
        pytest.param(wall_clock_calls, "from time import time as t\nt()", [2], id="and taken out of its module"),
        pytest.param(wall_clock_calls, "import time\ndef f(clock=time.time): ...", [2], id="handed on without a call"),
        pytest.param(wall_clock_calls, "import time\ntime.monotonic()\nself.now()", [], id="a stopwatch is none"),
        pytest.param(dry_run_branches, "if policy.dry_run: pass", [1], id="an if"),
        pytest.param(dry_run_branches, "x = 1 if not dry_run else 2", [1], id="an expression"),
        pytest.param(dry_run_branches, "[x for x in y if x.dry_run]", [1], id="a filter"),
        pytest.param(dry_run_branches, "label(policy.dry_run)", [], id="passing it on is no branch"),
    ],
)
def test_what_the_tests_above_look_for(see: Callable[[ast.AST], Iterator[int]], source: str, lines: list[int]) -> None:
    assert list(see(ast.parse(source))) == lines


def test_imports_are_seen_wherever_they_stand() -> None:
    tree = ast.parse("import os.path\ndef f():\n  from autoscaler.ledger import tables, Ledger\nimport autoscaler.cli")
    found = sorted(own_imports(tree, {"ledger", "ledger.tables", "cli"}))
    assert found == [(3, "ledger"), (3, "ledger.tables"), (4, "cli")]
    assert list(foreign_imports(tree)) == [(1, "os.path")]
