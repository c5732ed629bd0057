"""The image, built by buildah and run by podman as a cluster would run it: plain user, read-only root, then SIGTERM.

``make test-image`` runs this, as root; by its name, pytest does not find it otherwise. With ``BASE=<image>`` the image
is built on that; without, on one made here from Debian's packages, so that no registry is needed.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("buildah", "podman", "runc")
IMAGE = "localhost/autoscaler:test"
OWN_BASE = "localhost/autoscaler-base:bookworm"


def run(*command: str, check: bool = True, timeout: float = 60, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def podman(*arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return run("podman", "--runtime", "runc", *arguments, check=check, timeout=timeout)


# A confined root may not raise limits to podman's defaults; these suffice.
CONFINED = ("--read-only", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def once(*arguments: str, entrypoint: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of its own, without network: the image's, or another program of it."""
    chosen = ("--entrypoint", entrypoint) if entrypoint else ()
    options = ("--rm", "--no-healthcheck", "--network", "none", *CONFINED)
    return podman("run", *options, *chosen, IMAGE, *arguments, check=check)


def python(script: str) -> str:
    """What a script prints there."""
    return once("-c", script, entrypoint="python").stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    base = os.environ.get("BASE")
    needed = NEEDED if base else (*NEEDED, "debootstrap")
    missing = [program for program in needed if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and: apt-get install --no-install-recommends {' '.join(missing or needed)}")
    if base is None:
        base = OWN_BASE
        if run("buildah", "inspect", "--type", "image", base, check=False).returncode != 0:
            run("tests/container/make-base.sh", base, timeout=600)
    run("make", "image", f"BASE={base}", f"IMAGE={IMAGE}", timeout=600)


@pytest.fixture
def daemon() -> Iterator[tuple[str, int]]:
    """A running daemon with an empty folder of policies: its container's name and the port it listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"autoscaler-test-{os.getpid()}"
    podman(
        *("run", "--detach", "--name", name, *CONFINED, "--cap-drop", "all", "--security-opt", "no-new-privileges"),
        # Checked by hand below: podman's own timer needs systemd.
        *("--network", "host", "--health-interval", "disable", "--tmpfs", "/var/lib/autoscaler:U"),
        *("--env", f"AUTOSCALER_LISTEN=127.0.0.1:{port}", IMAGE, "run"),
    )
    try:
        yield name, port
    finally:
        podman("rm", "--force", "--time", "0", name)


def healthy(port: int, within: float) -> bool:
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
    return False


def test_the_daemon_is_healthy_and_ends_at_once_on_sigterm(daemon: tuple[str, int]) -> None:
    name, port = daemon
    assert healthy(port, within=20), podman("logs", name, check=False)
    podman("healthcheck", "run", name)

    began = time.monotonic()
    podman("stop", "--time", "20", name)
    assert time.monotonic() - began < 10
    logs = podman("logs", name, check=False)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "0", logs


def test_the_health_check_fails_where_nothing_listens() -> None:
    check = json.loads(podman("image", "inspect", IMAGE).stdout)[0]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    done = once(*check[2:], entrypoint=check[1], check=False)
    assert done.returncode == 1
    assert "ConnectionRefusedError" in done.stderr


def test_help_is_there() -> None:
    assert "Usage" in once("--help").stdout


def test_a_plain_user_with_a_number_runs_it() -> None:
    assert python("import os; print(os.getuid(), os.getgid())") == "10001 10001"


def test_time_zones_are_known() -> None:
    script = "import zoneinfo, datetime as d; print(d.datetime(2026, 6, 1, tzinfo=zoneinfo.ZoneInfo('Asia/Shanghai')))"
    assert python(script) == "2026-06-01 00:00:00+08:00"


def test_nothing_is_left_to_compile_and_nothing_can_be_installed() -> None:
    script = (
        "import autoscaler, pathlib; from importlib.util import cache_from_source, find_spec;"
        "sources = pathlib.Path(autoscaler.__file__).parent.rglob('*.py');"
        "compiled = all(pathlib.Path(cache_from_source(p)).exists() for p in sources);"
        "print(compiled, find_spec('pip'), find_spec('hatchling'))"
    )
    assert python(script) == "True None None"


def test_the_extras_are_in_it() -> None:
    assert python("import psycopg, alibabacloud_credentials; print('both')") == "both"


def test_only_the_state_can_be_written() -> None:
    done = once("-c", "touch /var/lib/autoscaler/kept && touch /opt/autoscaler/changed", entrypoint="sh", check=False)
    assert done.returncode == 1
    assert "/opt/autoscaler/changed" in done.stderr


def test_the_image_carries_its_settings_and_no_secret() -> None:
    config = json.loads(podman("image", "inspect", IMAGE).stdout)[0]["Config"]
    ours = {name: value for name, _, value in (line.partition("=") for line in config["Env"]) if "AUTOSCALER" in name}
    assert ours == {
        "AUTOSCALER_POLICIES": "/etc/autoscaler/policies",
        "AUTOSCALER_LEDGER": "sqlite:////var/lib/autoscaler/ledger.db",
        "AUTOSCALER_LISTEN": "0.0.0.0:8080",
    }
