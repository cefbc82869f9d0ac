"""A real KDC, its users, keytabs and tickets: `with kdc_in(folder) as realm`. The environment names it meanwhile."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.kit.ports import free_port
from tests.kit.process import until_open

REALM = "EXAMPLE.ORG"
_CONF = """
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
[domain_realm]
  .test = {realm}
"""
_KDC_CONF = """
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


class Realm:
    """What a KDC is asked to do. `port` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        found = [shutil.which(name, path="/usr/sbin:/usr/bin") for name in _PROGRAMS]
        if not all(found):
            cannot_run("a KDC (Debian: krb5-kdc krb5-admin-server krb5-user) is not installed")
        self._make, self._admin, self._kdc, self._kinit = map(str, found)
        self._server: subprocess.Popen[bytes] | None = None
        facts = {"realm": REALM, "folder": folder, "port": self.port}
        (folder / "krb5.conf").write_text(_CONF.format(**facts))
        (folder / "kdc.conf").write_text(_KDC_CONF.format(**facts))

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to believe in it."""
        return {
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self.folder}/tickets",
            "KRB5RCACHEDIR": str(self.folder),
        }

    def create(self) -> None:
        self._run(self._make, "create", "-s", "-r", REALM, "-P", "master")
        self.start()

    def add_user(self, user: str) -> None:
        """Whose password is `secret`."""
        self._run(self._admin, "-r", REALM, "-q", f"addprinc -pw secret {user}")

    def keytab(self, name: str, *principals: str) -> Path:
        """With a key of each, which is new to the KDC."""
        keytab = self.folder / name
        for principal in principals:
            self._run(self._admin, "-r", REALM, "-q", f"addprinc -randkey {principal}")
            self._run(self._admin, "-r", REALM, "-q", f"ktadd -k {keytab} {principal}")
        return keytab

    def ticket(self, user: str) -> None:
        """In the cache of this process."""
        self._run(self._kinit, user, typed="secret\n")

    def start(self) -> None:
        self._server = subprocess.Popen(
            [self._kdc, "-n", "-r", REALM],
            stdout=subprocess.DEVNULL,
            env=os.environ | self.environment,
        )
        until_open("127.0.0.1", self.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            self._server = None

    def _run(self, *words: str, typed: str = "") -> None:
        done = subprocess.run(
            words,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | self.environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr


_PROGRAMS = ("kdb5_util", "kadmin.local", "krb5kdc", "kinit")


@contextmanager
def kdc_in(folder: Path) -> Iterator[Realm]:
    realm = Realm(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in realm.environment.items():
            patch.setenv(name, value)
        try:
            realm.create()
            yield realm
        finally:
            realm.stop()
