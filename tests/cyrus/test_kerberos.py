"""Kerberos in a mixed murder, as RFC 3656 wants it: a Cyrus backend logs in at our master by a ticket, our node at a Cyrus
master, our frontend at a Cyrus backend in all its protocols.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.cyrus.conftest import ROOT, Lab
from tests.cyrus.our_nodes import rows_at, serving
from tests.cyrus.our_roles import DOMAIN, FRONTEND, clients_at, deliver, logged_in, popped, subjects
from tests.kit.managesieve import ManageSieve
from tests.kit.programs.kdc import REALM, Realm, kdc_in
from tests.kit.toml import Sections

NODE = "fe9node"  # a Cyrus (auth_unix) takes no name with a slash
MODULE = "*/sasl2/libgssapiv2.so"


@pytest.fixture
def realm(lab_ready: Lab) -> Iterator[Realm]:
    """Beside the lab, where Cyrus, as its own user, can read."""
    if next(Path("/usr/lib").glob(MODULE), None) is None:
        cannot_run("SASL knows no GSSAPI (Debian: libsasl2-modules-gssapi-mit)")
    folder = ROOT / "kdc"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with kdc_in(folder) as realm:
        yield realm


def of_cyrus(realm: Realm, name: str) -> dict[str, str]:
    """The environment of a Cyrus node: its services' keys, and its own to log in by."""
    host = f"{name}.{DOMAIN}"
    services = [f"{service}/{host}" for service in ("imap", "pop", "lmtp", "sieve", "mupdate")]
    keytab = realm.keytab(f"{name}.keytab", *services)
    own = realm.keytab(f"{name}-own.keytab", f"{name}node")
    for made in (keytab, own):
        shutil.chown(made, "cyrus", "mail")
    replays = realm.folder / f"{name}.replays"
    replays.mkdir()
    shutil.chown(replays, "cyrus", "mail")
    return {
        **realm.environment,
        "KRB5_KTNAME": str(keytab),
        "KRB5_CLIENT_KTNAME": str(own),
        "KRB5CCNAME": "MEMORY:own",
        "KRB5RCACHEDIR": str(replays),
    }


def settings(name: str, **lines: str) -> None:
    """Of a Cyrus node: these in place of what the lab says; "" takes a line away."""
    file = ROOT / name / "imapd.conf"
    said = [line.partition(": ") for line in file.read_text().splitlines()]
    kept = {key: value for key, _, value in said} | lines
    file.write_text("".join(f"{key}: {value}\n" for key, value in kept.items() if value))


def test_a_cyrus_backend_logs_in_at_our_master_by_a_ticket(
    cyrus_parts: Lab, realm: Realm, tmp_path: Path
) -> None:
    lab = cyrus_parts
    ours = realm.keytab("master.keytab", "mupdate/mupdate.murder.test")
    sections: Sections = {
        "mupdate": {
            "listen": [f"{lab.master[0]}:{lab.master[1]}"],
            "users": ["be1node", "murder"],
            "allow_plaintext": True,
        },
        "plugins": {"use": ["sasl_gssapi"]},
        "plugins.sasl_gssapi": {"keytab": str(ours), "realms": [REALM]},
    }
    with serving(tmp_path / "master", "mupdate.murder.test", "mupdate", sections) as master:
        master.until_open(*lab.master)
        settings(
            "be1",
            force_sasl_client_mech="GSSAPI",
            mupdate_username="",
            mupdate_authname="",
            mupdate_password="",
            loginrealms=REALM,
        )
        lab.run("start", "be1", **of_cyrus(realm, "be1"))
        logged_in(lab.backends[0], "cyrus").ask("CREATE user/anna")
        assert b"user.anna" in {row[1] for row in rows_at(*lab.master)}
        lines = [json.loads(line) for line in master.said().splitlines()]
    ways = {
        (line["user"], line["mechanism"]) for line in lines if line["event"] == "login.succeeded"
    }
    assert ("be1node", "GSSAPI") in ways


def test_our_frontend_logs_in_at_a_cyrus_by_tickets(
    cyrus_parts: Lab, realm: Realm, tmp_path: Path
) -> None:
    lab = cyrus_parts
    keytab = realm.keytab("ours.keytab", NODE)
    for name in ("mupdate", "be1"):
        settings(
            name,
            sasl_mech_list="GSSAPI PLAIN",
            loginrealms=REALM,
            proxyservers=f"murder {NODE}",
            lmtp_admins=f"cyrus murder {NODE}",
            admins=f"cyrus murder {NODE} be1node",
            force_sasl_client_mech="GSSAPI",
            mupdate_username="",
            mupdate_authname="",
            mupdate_password="",
        )
        lab.run("start", name, **of_cyrus(realm, name))
    logged_in(lab.backends[0], "cyrus").ask("CREATE user/user1")
    sections: Sections = {
        "mupdate": {
            "master": f"mupdate.{DOMAIN}:{lab.master[1]}",
            "master_auth": "gssapi",
            "master_tls": "none",
        },
        "frontend": {**clients_at(FRONTEND), "upstream_auth": "gssapi", "upstream_tls": "none"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CLIENT_KTNAME", str(keytab))
        patch.setenv("KRB5CCNAME", "MEMORY:own")
        with serving(tmp_path / "fe9", "fe9.murder.test", "frontend", sections, ["user1"]) as node:
            node.until_open(FRONTEND, 143).until_said("replica.synchronised")
            assert deliver(FRONTEND, "by-a-ticket", "user1")["user1"][0] == 250
            assert subjects(logged_in(FRONTEND, "user1"), "INBOX") == ["by-a-ticket"]
            assert popped(FRONTEND, "user1") == [b"by-a-ticket"]
            with ManageSieve(FRONTEND) as filters:
                secret = base64.b64encode(b"\0user1\0secret").decode()
                filters.ask(f'AUTHENTICATE "PLAIN" "{secret}"')
                filters.ask('PUTSCRIPT "mine"', b"keep;\r\n")
                assert '"mine"' in filters.ask("LISTSCRIPTS")
