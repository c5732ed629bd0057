"""Where the credential comes from, and what is said when there is none."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from autoscaler.credentials import credential_source
from autoscaler.secret import SecretUnavailable
from autoscaler.signing import Credential, CredentialUnavailable


def given(text: str) -> Callable[[], SecretStr]:
    return lambda: SecretStr(text)


def test_the_settings_are_asked_anew_each_time() -> None:
    keys = iter(["first", "second"])
    source = credential_source(lambda: SecretStr(next(keys)), given("secret"), None)
    assert source() == Credential("first", SecretStr("secret"))
    assert source() == Credential("second", SecretStr("secret"))


def test_a_token_makes_it_a_temporary_credential() -> None:
    assert credential_source(given("id"), given("secret"), given("token"))().security_token == SecretStr("token")


def test_a_secret_that_cannot_be_read_is_told_by_its_source() -> None:
    def unreadable() -> SecretStr:
        raise SecretUnavailable("file /run/key: No such file or directory")

    with pytest.raises(CredentialUnavailable, match="/run/key"):
        credential_source(given("id"), unreadable, None)()


@pytest.mark.parametrize(
    ("key_id", "token"),
    [
        pytest.param("", "t", id="an empty id"),
        pytest.param("idé", "t", id="an id that is not ASCII"),
        pytest.param("id", "one\ntwo-of-the-token", id="a token of two lines"),
    ],
)
def test_what_does_not_fit_a_header_is_refused_without_quoting_it(key_id: str, token: str) -> None:
    with pytest.raises(CredentialUnavailable) as caught:
        credential_source(given(key_id), given("secret"), given(token))()
    assert "two-of-the-token" not in str(caught.value)


def in_a_fresh_process(script: str) -> str:
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "HOME": "/nonexistent",
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_without_a_key_and_without_the_extra_the_mend_is_told() -> None:
    said = in_a_fresh_process(
        "import sys; sys.modules['alibabacloud_credentials'] = None\n"
        "from autoscaler.credentials import credential_source\n"
        "try: credential_source(None, None, None)()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    assert said.startswith("CredentialUnavailable no credential: set ALIBABA_CLOUD_ACCESS_KEY_ID")
    assert "autoscaler[credentials]" in said


def test_the_official_library_is_imported_only_where_it_is_needed() -> None:
    said = in_a_fresh_process(
        "import sys\n"
        "from pydantic import SecretStr\n"
        "from autoscaler.credentials import credential_source\n"
        "given = lambda: SecretStr('x')\n"
        "credential_source(given, given, None)()\n"
        "print('alibabacloud_credentials' in sys.modules)"
    )
    assert said == "False"


@pytest.mark.skipif(
    importlib.util.find_spec("alibabacloud_credentials") is None, reason="the extra `credentials` is not installed"
)
def test_a_chain_without_a_credential_says_so_without_its_own_words() -> None:
    said = in_a_fresh_process(
        "import logging\n"
        "from autoscaler.credentials import credential_source\n"
        "own, most = logging.getLogger('credentials'), logging.CRITICAL\n"
        "try: credential_source(None, None, None)()\n"
        "except Exception as error: print(type(error).__name__, error, own.handlers, own.isEnabledFor(most))"
    )
    assert said.startswith("CredentialUnavailable no credential: the official chain failed (CredentialException)")
    assert said.endswith("[] False")
