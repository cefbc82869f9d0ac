"""A real KDC, a ticket of it, and curl, which logs in by GSSAPI."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from murder.api.sasl import Mechanism
from murder.errors import Refusal
from plugins.sasl_gssapi import Exchange, Library, Settings, make_mechanisms
from tests.conftest import cannot_run
from tests.frontend.server import Parts, running_frontend
from tests.kit.ports import free_port
from tests.kit.waiting import until_soon

REALM = "EXAMPLE.ORG"
CONF = """
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  rdns = false
  dns_canonicalize_hostname = false
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
  }}
"""
KDC_CONF = """
[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
  }}
"""


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a keytab for imap/localhost and a ticket of anna's; its environment is set."""
    programs = [
        shutil.which(name, path="/usr/sbin:/usr/bin")
        for name in ("kdb5_util", "kadmin.local", "krb5kdc", "kinit")
    ]
    if not all(programs):
        cannot_run("a KDC (Debian: krb5-kdc krb5-admin-server krb5-user) is not installed")
    make, admin, kdc, kinit = (str(program) for program in programs)
    folder, port = tmp_path_factory.mktemp("kdc"), free_port()
    facts = {"realm": REALM, "folder": folder, "port": port}
    (folder / "krb5.conf").write_text(CONF.format(**facts))
    (folder / "kdc.conf").write_text(KDC_CONF.format(**facts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(folder / "krb5.conf"))
        patch.setenv("KRB5_KDC_PROFILE", str(folder / "kdc.conf"))
        patch.setenv("KRB5CCNAME", f"FILE:{folder}/tickets")
        patch.setenv("KRB5RCACHEDIR", str(folder))

        def run(*words: str, typed: str = "") -> None:
            done = subprocess.run(words, input=typed, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        run(make, "create", "-s", "-r", REALM, "-P", "master")
        for query in (
            "addprinc -pw secret anna",
            "addprinc -pw secret anna/admin",
            "addprinc -randkey imap/localhost",
            f"ktadd -k {folder}/keytab imap/localhost",
        ):
            run(admin, "-r", REALM, "-q", query)
        server = subprocess.Popen([kdc, "-n", "-r", REALM], stdout=subprocess.DEVNULL)
        try:

            def answers() -> bool:
                with closing(socket.socket()) as sock:
                    return sock.connect_ex(("127.0.0.1", port)) == 0

            asyncio.run(until_soon(answers))
            run(kinit, "anna", typed="secret\n")
            yield folder
        finally:
            server.terminate()
            server.wait()


class WithTickets(Parts):
    """The parts of a frontend that takes them."""

    def __init__(self, settings: Settings) -> None:
        self._rows = make_mechanisms(settings)

    def mechanisms(self) -> Sequence[Mechanism]:
        return self._rows


def curl(port: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    words = ["--login-options", "AUTH=GSSAPI", "-u", f"anna@{REALM}:", "-X", "NOOP"]
    return subprocess.run(
        ["curl", "-sv", *words, f"imap://localhost:{port}/"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


async def test_curl_logs_in_by_a_ticket(
    realm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("curl") is None:
        cannot_run("curl is not installed")
    taken = Settings(keytab=realm / "keytab", realms=(REALM,))
    async with running_frontend(tmp_path / "one", {}, {}, parts=WithTickets(taken)) as running:
        done = await asyncio.to_thread(curl, running.ports["imap"])
        assert done.returncode == 0, done.stderr
        assert "Logged in as anna" in done.stderr
        fake = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if fake is None:
            cannot_run("libfaketime is not installed")
        ahead = {"LD_PRELOAD": str(fake), "FAKETIME": "+10m"}
        late = await asyncio.to_thread(lambda: curl(running.ports["imap"], **ahead))
        assert late.returncode == 67, late.stderr
        assert "Clock skew too great; set both clocks" in caplog.text
    other = Settings(keytab=realm / "keytab", realms=("OTHER.ORG",))
    async with running_frontend(tmp_path / "two", {}, {}, parts=WithTickets(other)) as running:
        assert (await asyncio.to_thread(curl, running.ports["imap"])).returncode == 67
    assert "the principal anna@EXAMPLE.ORG is no user" in caplog.text


async def test_what_is_no_ticket_is_refused_and_said_why(
    realm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library, settings = Library(realm / "keytab"), Settings(realms=(REALM,))
    for token in (b"", b"\0", b"\x60\x03abc", os.urandom(200)):
        step = Exchange(library, settings).step(token)
        with pytest.raises(Refusal, match="was refused"):
            await step.proceed()  # type: ignore[union-attr]
    assert "a Kerberos ticket is refused" in caplog.text


def test_realms_must_be_said() -> None:
    with pytest.raises(Refusal, match="realms"):
        make_mechanisms(Settings())
