"""A 389 Directory Server beside a test: its own folder and port, and a few entries."""

import hashlib
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import cannot_run
from tests.kit.ports import free_port
from tests.kit.process import until_open

BASE = "dc=example,dc=org"
DATA = Path("/usr/share/dirsrv/data/template-dse.ldif")
FOLDERS = ("schema", "lock", "tmp", "ldif", "bak", "run", "log", "db")
SUFFIX = """
dn: cn=userRoot,cn=ldbm database,cn=plugins,cn=config
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userRoot
nsslapd-suffix: dc=example,dc=org

dn: cn="dc=example,dc=org",cn=mapping tree,cn=config
objectClass: extensibleObject
objectClass: nsMappingTree
cn: dc=example,dc=org
nsslapd-state: backend
nsslapd-backend: userRoot

dn: dc=example,dc=org
objectClass: domain
dc: example
aci: (targetattr!="userPassword")(version 3.0; acl "read"; allow (read,search,compare)
  userdn="ldap:///uid=murder,dc=example,dc=org";)

dn: cn=staff,dc=example,dc=org
objectClass: groupOfNames
cn: staff
member: uid=anna,dc=example,dc=org

dn: cn=everybody,dc=example,dc=org
objectClass: groupOfNames
cn: everybody
member: cn=staff,dc=example,dc=org
"""
PERSON = """
dn: uid={user},dc=example,dc=org
objectClass: inetOrgPerson
uid: {user}
cn: {user}
sn: {user}
mail: {user}@example.org
userPassword: Secret.123
{more}"""
POLICY = """
dn: cn=config
changetype: modify
replace: passwordExp
passwordExp: on
-
replace: passwordLockout
passwordLockout: on
-
replace: passwordMaxFailure
passwordMaxFailure: 2

dn: uid=old,dc=example,dc=org
changetype: modify
replace: passwordExpirationTime
passwordExpirationTime: 20200101000000Z
"""


@contextmanager
def running_389(folder: Path) -> Iterator[str]:
    """Its address. There are murder, anna, ben, old (whose password has expired) and off (who is inactivated)."""
    server = shutil.which("ns-slapd", path="/usr/sbin:/usr/bin")
    if server is None or shutil.which("ldapadd") is None:
        cannot_run("389-ds (Debian: 389-ds-base ldap-utils) is not installed")
    port = free_port()
    _configure(folder, port)
    process = subprocess.Popen(
        [server, "-D", str(folder), "-i", str(folder / "pid"), "-d", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_open("127.0.0.1", port)
        people = {"murder": "", "anna": "", "ben": "", "old": "", "off": "nsAccountLock: true\n"}
        entries = (PERSON.format(user=user, more=more) for user, more in people.items())
        _change("ldapadd", port, SUFFIX + "".join(entries))
        _change("ldapmodify", port, POLICY)
        yield f"ldap://localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def _change(program: str, port: int, text: str) -> None:
    words = [program, "-x", "-H", f"ldap://localhost:{port}", "-D", "cn=root", "-w", "root"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _configure(folder: Path, port: int) -> None:
    """What its own set-up would write, which wants systemd."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    shutil.copytree("/etc/dirsrv/schema", folder / "schema", dirs_exist_ok=True)
    shutil.copy("/etc/dirsrv/config/slapd-collations.conf", folder)
    digest = b64encode(hashlib.sha1(b"rootsalt").digest() + b"salt").decode()
    facts = {
        **{f"{name}_dir": str(folder / name) for name in FOLDERS},
        **{f"{name}_dir": str(folder) for name in ("cert", "inst", "config")},
        "db_home_dir": str(folder / "db"),
        "db_lib": "bdb",
        "ds_passwd": "{SSHA}" + digest,
        "ds_port": str(port),
        "ds_suffix": BASE,
        "ds_user": "root",
        "fqdn": "localhost",
        "ldapi": str(folder / "ldapi"),
        "ldapi_autobind": "off",
        "ldapi_enabled": "off",
        "rootdn": "cn=root",
    }
    text = DATA.read_text()
    (folder / "dse.ldif").write_text(re.sub("%([a-z_]+)%", lambda found: facts[found[1]], text))
