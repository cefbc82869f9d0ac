"""An OpenLDAP server beside a test: its own folder, port, certificate, and a few entries."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import cannot_run
from tests.kit.ports import free_ports
from tests.kit.waiting import until_soon

BASE = "dc=example,dc=org"
CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {folder}/pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="{base}" by dn.exact="cn=murder,{base}" read by self read by anonymous auth
database mdb
suffix "{base}"
rootdn "cn=root,{base}"
rootpw root
directory {folder}/db
overlay memberof
overlay ppolicy
ppolicy_use_lockout
"""
ENTRIES = """
dn: dc=example,dc=org
objectClass: domain
dc: example

dn: cn=murder,dc=example,dc=org
objectClass: person
cn: murder
sn: murder
userPassword: service

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=anna,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: anna
cn: Anna Arendt
sn: Arendt
mail: anna@example.org
mail: a.arendt@example.org
employeeNumber: be1.example.org
userPassword: secret

dn: uid=o'brien (x\\2a),ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: o'brien(x
cn: O'Brien
sn: O'Brien
userPassword: secret

dn: ou=branch,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
ou: branch
ref: ldap://branch.example.org/ou=branch,dc=example,dc=org

dn: uid=twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: Twin
sn: One
userPassword: secret

dn: cn=twin2,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: twin2
sn: Two
userPassword: secret

dn: cn=policy,dc=example,dc=org
objectClass: person
objectClass: pwdPolicy
cn: policy
sn: policy
pwdAttribute: userPassword
pwdMaxAge: 86400
pwdMustChange: TRUE
pwdLockout: TRUE

dn: uid=old,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: old
cn: old
sn: old
userPassword: secret
pwdPolicySubentry: cn=policy,dc=example,dc=org
pwdChangedTime: 20200101000000Z

dn: uid=must,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: must
cn: must
sn: must
userPassword: secret
pwdPolicySubentry: cn=policy,dc=example,dc=org
pwdReset: TRUE

dn: uid=locked,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: locked
cn: locked
sn: locked
userPassword: secret
pwdPolicySubentry: cn=policy,dc=example,dc=org
pwdAccountLockedTime: 000001010000Z

dn: cn=staff,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: staff
member: uid=anna,ou=people,dc=example,dc=org

dn: cn=everybody,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: everybody
member: cn=staff,ou=groups,dc=example,dc=org
member: cn=everybody,ou=groups,dc=example,dc=org
"""


@dataclass
class Slapd:
    """One that runs."""

    folder: Path
    plain: int
    tls: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def ca(self) -> Path:
        return self.folder / "cert.pem"

    def start(self) -> None:
        urls = f"ldap://127.0.0.1:{self.plain}/ ldaps://127.0.0.1:{self.tls}/"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [_slapd(), "-d", "none", "-h", urls, "-f", str(self.folder / "slapd.conf")],
                stdout=log,
                stderr=log,
            )
        asyncio.run(until_soon(lambda: all(_listens(port) for port in (self.plain, self.tls))))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _slapd() -> str:
    program = shutil.which("slapd", path="/usr/sbin:/usr/bin")
    if program is None:
        cannot_run("slapd (Debian: slapd) is not installed")
    return program


def make_certificate(folder: Path) -> None:
    """For localhost, in `cert.pem` and `key.pem`."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )


@contextmanager
def running_slapd(folder: Path) -> Iterator[Slapd]:
    """One with `ENTRIES`; its certificate is for localhost and 127.0.0.1."""
    slapd = _slapd()
    (folder / "db").mkdir(parents=True)
    make_certificate(folder)
    (folder / "slapd.conf").write_text(CONF.format(folder=folder, base=BASE))
    (folder / "entries.ldif").write_text(ENTRIES)
    loaded = subprocess.run(
        [
            *(slapd, "-T", "add", "-f", str(folder / "slapd.conf")),
            *("-l", str(folder / "entries.ldif")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    plain, tls = free_ports(2)
    server = Slapd(folder, plain, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
