"""MUPDATE with a real Cyrus, nothing patched: its backends and frontend under our master; our replica under its master.

Both live through the same day: create, delete, rename, setacl, moves between backends, names that Cyrus sorts in its own
way, restarts of backends (`ctl_mboxlist -m`) and of the frontend.
"""

import imaplib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import on_etcd, our_node, rows_at
from tests.kit.engine import EMBEDDED, ENGINE, is_shared
from tests.kit.process import until_open
from tests.kit.programs.etcd import needs_etcd
from tests.kit.waiting import until

imaplib.Commands.setdefault("XFER", ("AUTH",))
SETTLE_S = 60.0  # a Cyrus replica calls again after 20 to 30 s
SERVERS = ("be1.murder.test", "be2.murder.test")
OUR_REPLICA = ("127.0.0.1", 13906)


def as_admin(host: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4(host, timeout=30)
    client.login("cyrus", "secret")
    return client


def do(client: imaplib.IMAP4, *words: str) -> None:
    """One command that must succeed."""
    status, said = client._simple_command(*words)  # imaplib's own way to add one
    assert status == "OK" and b"NO" not in said[0].split()[:1], (words, said)


def delete(client: imaplib.IMAP4, name: str) -> None:
    """An administrator of Cyrus has the right to give themselves the right."""
    do(client, "SETACL", name, "cyrus", "lrx")
    do(client, "DELETE", name)


def settled(what: Callable[[], object], wanted: Callable[[], object]) -> None:
    """Wait until both are the same; the difference is in the failure."""
    until(lambda: what() == wanted(), lambda: (what(), wanted()), SETTLE_S, every_s=0.5)


def mailboxes_on(host: str) -> set[bytes]:
    """What the backend itself has, in the list's form."""
    client = as_admin(host)
    _, lines = client.list('""', "*")
    client.logout()
    names = [line.rpartition(b' "/" ')[2].strip(b'"') for line in lines if isinstance(line, bytes)]
    return {name.replace(b".", b"^").replace(b"/", b".") for name in names}


def rows_of(server: str, rows: list[tuple[bytes, ...]]) -> set[bytes]:
    active = [row for row in rows if row[0].upper() == b"MAILBOX"]
    return {row[1] for row in active if row[2].startswith(server.encode() + b"!")}


def check(lab: Lab, master: tuple[str, int], replicas: list[tuple[str, int]]) -> None:
    """Master, replicas and backends agree, in Cyrus' order everywhere."""
    for replica in replicas:
        settled(lambda: sorted(rows_at(*replica)), lambda: sorted(rows_at(*master)))  # noqa: B023
    rows = rows_at(*master)
    keys = [row[1].replace(b".", b"\x1f") for row in rows]
    assert keys == sorted(keys)
    for server, host in zip(SERVERS, lab.backends, strict=True):
        assert rows_of(server, rows) - mailboxes_on(host) == set()
        assert mailboxes_on(host) - rows_of(server, rows) == set()


def a_day(lab: Lab, master: tuple[str, int], replicas: list[tuple[str, int]]) -> None:
    """What happens in a murder; `check` in between."""
    lab.run("populate")
    check(lab, master, replicas)
    frontend, first = as_admin(lab.frontend), as_admin(lab.backends[0])
    names = ["foo", "foo/bar", "foo-bar", "foo bar", "foo&AOQ-", "foo.dot", "foo!x", "x#y"]
    for name in names[:-2]:
        do(frontend, "CREATE", f'"user/user1/{name}"')
    do(first, "CREATE", "user/user1/x#y")
    do(frontend, "SETACL", "user/user1/foo", "user2", "lrs")
    do(frontend, "SETACL", "user/user1/foo", "-user3", "l")
    check(lab, master, replicas)
    do(frontend, "RENAME", '"user/user1/foo-bar"', '"user/user1/foo-baz"')
    do(frontend, "RENAME", "user/user1/foo", "user/user1/fuu")  # with what is below it
    delete(frontend, "user/user1/foo.dot")
    do(frontend, "DELETEACL", "user/user1/fuu", "user2")
    check(lab, master, replicas)
    do(first, "XFER", "user/user1", SERVERS[1])
    check(lab, master, replicas)
    assert b"user.user1.fuu.bar" in rows_of(SERVERS[1], rows_at(*master))
    frontend.logout()
    first.logout()
    # ctl_mboxlist -m compares, and would delete what it finds misplaced
    lab.run("restart", "be1", "be2")
    check(lab, master, replicas)
    # while the frontend is away, a name goes whose neighbours sort differently by byte
    lab.run("stop", "fe1")
    second = as_admin(lab.backends[1])
    delete(second, "user/user1/fuu/bar")
    do(second, "CREATE", "user/user1/fuu-bar")
    second.logout()
    lab.run("start", "fe1")
    check(lab, master, replicas)
    as_admin(lab.frontend).logout()


@pytest.mark.parametrize("engine", [ENGINE] if is_shared() else [EMBEDDED, "etcd"])
def test_cyrus_backends_and_frontend_live_a_day_under_our_master(
    cyrus_parts: Lab, tmp_path: Path, engine: str
) -> None:
    if engine == "etcd":
        needs_etcd()
    lab, name = cyrus_parts, "mupdate.murder.test"
    with on_etcd(tmp_path) if engine == "etcd" else nullcontext() as kept:
        with our_node(tmp_path, name, *lab.master, engine=kept):
            lab.run("start", "be1", "be2", "fe1")
            until_open(lab.frontend, 3905)
            a_day(lab, lab.master, [(lab.frontend, 3905)])
        with our_node(tmp_path, name, *lab.master, engine=kept):  # and after a restart of ours
            check(lab, lab.master, [(lab.frontend, 3905)])


def test_our_replica_follows_a_cyrus_master_through_a_day(cyrus_parts: Lab, tmp_path: Path) -> None:
    lab = cyrus_parts
    lab.run("start")
    with our_node(tmp_path, "replica.test", *OUR_REPLICA, master=lab.master):
        a_day(lab, lab.master, [OUR_REPLICA, (lab.frontend, 3905)])
        lab.run("restart", "mupdate")
        check(lab, lab.master, [OUR_REPLICA])
