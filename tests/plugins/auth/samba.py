"""A domain of Active Directory, by Samba, beside a test: on ports 389 and 636 of loopback, so one at a time, and as root."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import cannot_run
from tests.kit.process import until_open
from tests.plugins.auth.slapd import make_certificate

BASE = "dc=example,dc=test"
PASSWORD = "Secret.123"
LOCK = Path("/tmp/murder-samba.lock")
PYTHON = "/usr/bin/python3"  # the one that Debian's samba is for
MODULES = Path("/usr/lib/python3/dist-packages/samba")
SERVICES = """
server services = ldap
tls certfile = {folder}/cert.pem
tls keyfile = {folder}/key.pem
tls cafile =
"""
PEOPLE = """
import sys, time
import ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

lp = LoadParm()
lp.load(sys.argv[1])
db = SamDB(url=lp.private_path("sam.ldb"), session_info=system_session(), lp=lp)
base = str(db.domain_dn())


def change(name, **values):
    message = ldb.Message(ldb.Dn(db, name))
    for key, value in values.items():
        message[key] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, key)
    db.modify(message)


for user in ("anna", "must", "off", "gone", "locked"):
    db.newuser(user, sys.argv[2], mailaddress=user + "@example.test")
for group in ("staff", "everybody"):
    db.newgroup(group)
db.add_remove_group_members("staff", ["anna"])
db.add_remove_group_members("everybody", ["staff"], member_types=["group"])
change(base, lockoutThreshold="3")
change("CN=must,CN=Users," + base, pwdLastSet="0")
change("CN=off,CN=Users," + base, userAccountControl="514")
change("CN=gone,CN=Users," + base, accountExpires="130000000000000000")
change("CN=locked,CN=Users," + base, lockoutTime=str(int((time.time() + 11644473600) * 1e7)))
"""


@contextmanager
def running_samba(folder: Path) -> Iterator[Path]:
    """Its certificate, which is for localhost. There are anna, must (who must change their
    password), off (disabled), gone (expired), locked."""
    tool, server = shutil.which("samba-tool"), shutil.which("samba", path="/usr/sbin")
    if tool is None or server is None or not (MODULES / "provision").is_dir():
        cannot_run(
            "Samba AD (Debian: samba samba-ad-provision samba-dsdb-modules samba-vfs-modules) is not installed"
        )
    if os.geteuid() != 0:
        cannot_run("Samba AD needs root")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(
            *(tool, "domain", "provision", "--realm=EXAMPLE.TEST", "--domain=EXAMPLE"),
            *("--server-role=dc", "--dns-backend=NONE", f"--adminpass={PASSWORD}"),
            *(f"--targetdir={folder}", "--host-name=dc1", "--host-ip=127.0.0.1"),
            *("--option=interfaces=lo", "--option=bind interfaces only=yes"),
        )
        conf = folder / "etc/smb.conf"
        lines = conf.read_text().splitlines(keepends=True)
        less = [line for line in lines if "server services" not in line]
        make_certificate(folder)
        (folder / "key.pem").chmod(0o600)
        less.insert(less.index("[global]\n") + 1, SERVICES.format(folder=folder))
        conf.write_text("".join(less))
        _run(PYTHON, "-c", PEOPLE, str(conf), PASSWORD)
        with (folder / "log").open("wb") as log:
            words = [server, "-i", "-M", "single", "-s", str(conf), "--debug-stdout"]
            process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            until_open("127.0.0.1", 636)
            yield folder / "cert.pem"
        finally:
            process.terminate()
            process.wait()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
