import os
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from autoscaler.policy.secret import SecretReference
from autoscaler.secret import FileSecret, FixedSecret, SecretUnavailable, SecretUnusable, one_line, resolve

HUSH = "hush-hush"


def text_of(secret: SecretStr) -> str:
    return secret.get_secret_value()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        pytest.param("s3cret", "s3cret", id="a bare line"),
        pytest.param("s3cret\n", "s3cret", id="a line with its end"),
        pytest.param("s3cret\r\n", "s3cret", id="a line from Windows"),
        pytest.param(" pass word ", " pass word ", id="blanks belong to a password"),
        pytest.param("пароль", "пароль", id="letters of any script"),
    ],
)
def test_one_line_takes(text: str, secret: str) -> None:
    assert text_of(one_line(text)) == secret


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("\n\n", id="only line ends"),
        pytest.param(f"{HUSH}\n{HUSH}", id="two lines, which a header cannot carry"),
        pytest.param(f"{HUSH}\x00", id="a zero byte"),
        pytest.param(f"\ufeff{HUSH}", id="a byte order mark"),
    ],
)
def test_one_line_refuses_without_quoting(text: str) -> None:
    with pytest.raises(SecretUnusable) as caught:
        one_line(text)
    assert HUSH not in f"{caught.value} {caught.value!r}"


def test_a_file_is_read_at_each_asking(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    secret = FileSecret(file, one_line)
    assert text_of(secret()) == "first"
    before = file.stat()
    file.write_text("other\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size within one tick of the clock
    assert text_of(secret()) == "other"


def test_the_symlinks_of_a_kubernetes_secret_are_followed_as_they_swap(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(f"version {version}")
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "token").symlink_to("..data/token")
    secret = FileSecret(tmp_path / "token", one_line)
    assert text_of(secret()) == "version 1"
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert text_of(secret()) == "version 2"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="the file vanished"),
        pytest.param(lambda file: file.write_text(""), id="the file is being rewritten"),
        pytest.param(lambda file: file.write_bytes(b"\xff\xfe"), id="the file is not text"),
        pytest.param(lambda file: (file.unlink(), file.mkdir()), id="the file became a directory"),
    ],
)
def test_the_last_good_value_stays_and_the_log_says_so_once(tmp_path: Path, spoil: object) -> None:
    file = tmp_path / "token"
    file.write_text(HUSH)
    secret = FileSecret(file, one_line)
    secret()
    assert callable(spoil)
    spoil(file)
    with capture_logs() as logs:
        assert [text_of(secret()), text_of(secret())] == [HUSH, HUSH]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("secret.stale", "warning")]
    assert str(file) in logs[0]["problem"]
    assert HUSH not in str(logs)


def test_a_second_failure_after_a_recovery_is_logged_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    secret = FileSecret(file, one_line)
    with capture_logs() as logs:
        for content in ("one", "", "two", ""):
            file.write_text(content)
            secret()
    assert len(logs) == 2
    assert text_of(secret()) == "two"


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda file: None, "cannot be read: No such file", id="no file"),
        pytest.param(Path.mkdir, "is not a regular file", id="a directory"),
        pytest.param(make_pipe, "is not a regular file", id="a pipe that nobody writes to"),
        pytest.param(lambda file: file.write_bytes(b"x" * 70000), "is larger than 64 KiB", id="a file too large"),
        pytest.param(lambda file: file.write_bytes(f"{HUSH}\xff".encode("latin-1")), "is not UTF-8", id="not text"),
        pytest.param(lambda file: file.write_text(f"{HUSH}\n{HUSH}"), "is not one line", id="two lines"),
    ],
)
@pytest.mark.timeout(5)
def test_a_file_that_never_was_good_is_unavailable(tmp_path: Path, make: object, says: str) -> None:
    file = tmp_path / "token"
    assert callable(make)
    make(file)
    with pytest.raises(SecretUnavailable, match=says) as caught:
        FileSecret(file, one_line)()
    assert str(file) in str(caught.value)
    assert HUSH not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_references_resolve_to_what_is_there_when_they_are_called(tmp_path: Path) -> None:
    environ = {}
    file = tmp_path / "password"
    from_environment = resolve(SecretReference(env="EDGE_PASSWORD"), environ)
    from_file = resolve(SecretReference(file=str(file)), environ)
    with pytest.raises(SecretUnavailable, match="environment variable EDGE_PASSWORD is not set"):
        from_environment()
    with pytest.raises(SecretUnavailable, match=str(file)):
        from_file()
    environ["EDGE_PASSWORD"] = "Passw0rd!"
    file.write_text("Passw1rd!\n")
    assert [text_of(from_environment()), text_of(from_file())] == ["Passw0rd!", "Passw1rd!"]


def test_an_unusable_variable_is_named_and_not_quoted() -> None:
    with pytest.raises(SecretUnavailable, match="environment variable EDGE_PASSWORD is not one line") as caught:
        resolve(SecretReference(env="EDGE_PASSWORD"), {"EDGE_PASSWORD": f"{HUSH}\n{HUSH}"})()
    assert HUSH not in str(caught.value)


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(HUSH)
    from_file = FileSecret(file, one_line)
    from_file()
    secrets = [from_file, FixedSecret(SecretStr(HUSH)), resolve(SecretReference(env="E"), {"E": HUSH})]
    assert HUSH not in repr(secrets)
