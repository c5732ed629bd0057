"""What is installed elsewhere is whole: the wheel holds every file of the package, the locks every dependency."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

RUNTIME = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
EVERY_EXTRA = [line for lines in EXTRAS.values() for line in lines]
GROUPS = {
    name: [line for line in lines if isinstance(line, str)] for name, lines in PROJECT["dependency-groups"].items()
}

LOCKS = {
    "build": GROUPS["build"],
    # The solver and its NumPy (90 MB) are for whoever simulates, not for the daemon.
    "image": [*RUNTIME, *EXTRAS["credentials"], *EXTRAS["postgres"]],
    "dev": [*RUNTIME, *EVERY_EXTRA, *GROUPS["build"], *GROUPS["dev"]],
}

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: ;.*?)?) \\\n((?:    --hash=.*\n)*)", re.MULTILINE)


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def pins_of(lock: str) -> dict[str, set[Version]]:
    pins: dict[str, set[Version]] = {}
    for name, version, _, _ in PINNED.findall(text_of(lock)):
        pins.setdefault(canonicalize_name(name), set()).add(Version(version))
    return pins


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_brings_what_the_project_asks_for(lock: str) -> None:
    pins = pins_of(lock)
    unmet = [
        line
        for line in LOCKS[lock]
        if not any(
            version in Requirement(line).specifier
            for version in pins.get(canonicalize_name(Requirement(line).name), ())
        )
    ]
    assert unmet == [], "run: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_every_hash(lock: str) -> None:
    text = text_of(lock)
    assert re.findall(r"(?:\w+:/|--(?!hash=sha256:))\S*", text) == []
    assert [name for name, _, _, hashes in PINNED.findall(text) if not hashes] == []
    unpinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#")) and "==" not in line]
    assert unpinned == []


def test_development_runs_on_the_versions_of_the_image() -> None:
    dev = pins_of("dev")
    assert {name: versions for name, versions in pins_of("image").items() if dev.get(name) != versions} == {}


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = (path.relative_to(ROOT) for path in (ROOT / "autoscaler").rglob("*") if path.is_file())
    assert {str(path) for path in files if "__pycache__" not in path.parts} - packed == set()
