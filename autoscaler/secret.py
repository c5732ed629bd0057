"""Secrets that may change under a running daemon: asked for anew each time they are used, never shown.

A secret is a callable. Whoever needs one keeps the callable, not the value, so a rotated file is picked up by the next
request without a restart. Files are read at each asking rather than watched: they are a few bytes, and neither the
symlinks Kubernetes swaps nor a change within one tick of the file system's clock can be missed that way.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from pydantic import SecretStr

from autoscaler.policy.secret import SecretReference

log = structlog.get_logger()

T = TypeVar("T")

# A secret is a line or a page. More is a wrong path, and would be held in memory and compared at each request.
LARGEST_FILE = 64 * 1024


class SecretUnavailable(Exception):
    """A secret cannot be had. The text names its environment variable or file and says why, never what is in it."""


class SecretUnusable(ValueError):
    """A secret's text is not what it has to be. The arguments say what is wrong and the mend, never the text."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


def one_line(text: str) -> SecretStr:
    """The secret that ``text`` is, without the line end that editors put after it.

    Raises:
        SecretUnusable: it is empty, or holds control characters. Those are refused here because HTTP libraries refuse
            them too, by an error that quotes the whole header.
    """
    secret = text.rstrip("\r\n")
    if not secret:
        raise SecretUnusable("is empty", "put the secret there, or leave the setting out")
    if not secret.isprintable():
        raise SecretUnusable("is not one line of printable text", "put there the bare secret and nothing else")
    return SecretStr(secret)


@dataclass(frozen=True, slots=True)
class FixedSecret(Generic[T]):
    """A secret that was given as it is and stays so for the life of the process."""

    value: T  # of a type that hides itself in its repr

    def __call__(self) -> T:
        return self.value


class FileSecret(Generic[T]):
    """A secret in a file, as the file is now.

    While the file is missing, unreadable or unusable, the last good value stays in use, so that a rotation caught in
    the middle does not lock the daemon out; the log says so once.

    Args:
        path: the file; symlinks are followed at each reading.
        parse: makes the value from the file's text; raises SecretUnusable.
    """

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        self.path = path
        self._parse = parse
        self._last_good: T | None = None
        self._stale = False

    def __call__(self) -> T:
        """The value now, or the last good one.

        Raises:
            SecretUnavailable: there is none, and there never was a good one.
        """
        try:
            value = self.read()
        except SecretUnusable as error:
            problem = f"file {self.path} {error}"
            if self._last_good is None:
                raise SecretUnavailable(problem) from None
            if not self._stale:
                log.warning("secret.stale", problem=problem)
            self._stale = True
            return self._last_good
        self._stale = False
        return value

    def read(self) -> T:
        """The value now.

        Raises:
            SecretUnusable: there is none. It does not name the file, whose name may be a secret put in the wrong place.
        """
        self._last_good = self._parse(_read_text(self.path))
        return self._last_good

    def __repr__(self) -> str:
        return f"FileSecret({str(self.path)!r})"


@dataclass(frozen=True, slots=True)
class EnvironmentSecret:
    """A secret in an environment variable."""

    name: str
    environ: Mapping[str, str]

    def __call__(self) -> SecretStr:
        """The value.

        Raises:
            SecretUnavailable: the variable is not set, or its text is unusable.
        """
        text = self.environ.get(self.name)
        if text is None:
            raise SecretUnavailable(f"environment variable {self.name} is not set")
        try:
            return one_line(text)
        except SecretUnusable as error:
            raise SecretUnavailable(f"environment variable {self.name} {error}") from None

    def __repr__(self) -> str:
        return f"EnvironmentSecret({self.name!r})"


def resolve(reference: SecretReference, environ: Mapping[str, str]) -> Callable[[], SecretStr]:
    """What a policy file refers to by ``{env: …}`` or ``{file: …}``; nothing is read before it is called.

    The callable raises SecretUnavailable.
    """
    if reference.file is not None:
        return FileSecret(Path(reference.file), one_line)
    return EnvironmentSecret(str(reference.env), environ)  # a reference has exactly one of the two


def _read_text(path: Path) -> str:
    mend = "give the path of a readable file that holds the secret alone"
    try:
        # Not blocking: opening a pipe nobody writes to would hold the caller, an evaluation, for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SecretUnusable("is not a regular file", mend)
            content = os.read(descriptor, LARGEST_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SecretUnusable(f"cannot be read: {error.strerror}", mend) from None
    if len(content) > LARGEST_FILE:
        raise SecretUnusable(f"is larger than {LARGEST_FILE // 1024} KiB", mend)
    try:
        return content.decode()
    except UnicodeDecodeError:
        # The exception itself holds the bytes.
        raise SecretUnusable("is not UTF-8 text", mend) from None
