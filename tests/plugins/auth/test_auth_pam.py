"""The host's PAM, with rules of the test's own and a file of passwords (pam_pwdfile)."""

import asyncio
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from murder.api import Denied, Identity, LoginAttempt
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from plugins.auth_pam import Settings, make_auth_backend
from plugins.auth_pam.hooks import Pam
from tests.conftest import cannot_run

PAMS_OWN_DELAY_S = 4.4  # of three guesses: two seconds each, give or take a quarter
HERE = LoginAttempt("imap", "fe1.test", "192.0.2.1", is_tls=True)


def pam(folder: Path, account: str = "account required pam_permit.so", **rules: str) -> Pam:
    """One whose users are anna and `locked`, both with the password `secret`."""
    if not list(Path("/lib").glob("*/security/pam_pwdfile.so")):
        cannot_run("pam_pwdfile (Debian: libpam-pwdfile) is not installed")
    done = subprocess.run(
        ["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True
    )
    (folder / "passwords").write_text(f"anna:{done.stdout.strip()}\n")
    rule = f"auth required pam_pwdfile.so pwdfile={folder / 'passwords'}\n{account}\n"
    (folder / "imap").write_text(rule)
    for name, text in rules.items():
        (folder / name).write_text(text)
    return make_auth_backend(Settings(folder=folder, helpers=2, timeout_s=5))


async def test_pam_says_who_is_who(tmp_path: Path) -> None:
    users = pam(tmp_path)
    assert await users.check(HERE, "Anna", b"secret") == Identity("anna")
    began = time.monotonic()
    for guess in (b"wrong", b"guess", b"other"):
        assert await users.check(HERE, "anna", guess) is Denied.WRONG
    assert time.monotonic() - began < PAMS_OWN_DELAY_S, "a helper stands still for a guess"
    assert await users.check(HERE, "nobody", b"secret") in (Denied.UNKNOWN, Denied.WRONG)
    for user, password in (("anna", b""), ("anna", b"secret\0"), ("an na", b"x"), ("", b"x")):
        assert await users.check(HERE, user, password) is Denied.UNKNOWN
    found = await asyncio.gather(*(users.check(HERE, "anna", b"secret") for _ in range(6)))
    assert found == [Identity("anna")] * 6
    assert await users.diagnose() == []


async def test_who_may_not_come_in_is_told_so_by_the_right_password(tmp_path: Path) -> None:
    users = pam(tmp_path, account="account required pam_deny.so")
    assert await users.check(HERE, "anna", b"wrong") is Denied.WRONG
    with pytest.raises(Refusal) as refused:
        await users.check(HERE, "anna", b"secret")
    assert refused.value.code is Code.CONTACT_ADMIN


async def test_a_module_that_hangs_is_left_and_holds_up_nobody(tmp_path: Path) -> None:
    slow = "auth required pam_exec.so quiet /bin/sleep 60\n"
    users = pam(tmp_path, pop=slow)
    quick = make_auth_backend(Settings(folder=tmp_path, timeout_s=0.3))
    hanging = LoginAttempt("pop3", "fe1.test", "192.0.2.1", is_tls=True)
    waiting = asyncio.ensure_future(quick.check(hanging, "anna", b"secret"))
    assert await users.check(HERE, "anna", b"secret") == Identity("anna")
    with pytest.raises(UpstreamFailure) as failed:
        await waiting
    assert failed.value.kind is UpstreamKind.TIMEOUT
    assert f"a module of {tmp_path / 'pop'} waits" in failed.value.text


async def test_rules_that_are_not_there_are_told(tmp_path: Path) -> None:
    users = make_auth_backend(Settings(folder=tmp_path, service="nothing"))
    with pytest.raises(UpstreamFailure) as failed:
        await users.check(HERE, "anna", b"secret")
    assert failed.value.cure.startswith(f"look at {tmp_path / 'nothing'}")
    (fault,) = await users.diagnose()
    assert "is missing" in fault.what
    assert "plugins.auth_pam.service" in fault.cure


async def test_a_protocol_without_a_file_of_rules_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever comes by it hears that their password is wrong, and a look at the node looks at IMAP's."""
    users = pam(tmp_path, other="auth required pam_deny.so\n")
    by_pop3 = replace(HERE, protocol="pop3")
    for _ in range(2):
        assert await users.check(by_pop3, "anna", b"secret") is Denied.WRONG
    assert caplog.text.count("is missing, so PAM's `other` rules") == 1 and "/pop is" in caplog.text
