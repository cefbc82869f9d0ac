"""The list as text: out, in, from Cyrus' dumps, and by the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murder.errors import BadSyntax
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MailboxName
from murder.roles.mupdate.database.change import PutEntry, RemoveEntry
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.transfer import check, dump, format_row, load, read_rows

PROJECT = Path(__file__).parent.parent.parent.parent.parent


def entry(name: bytes, location: bytes = b"be1!p", acl: bytes = b"ana\tlrs\t") -> MailboxEntry:
    return MailboxEntry(MailboxName(name), EntryState.ACTIVE, location, acl)


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=30), st.binary(max_size=30))
def test_whatever_the_octets_a_row_comes_back(name: bytes, location: bytes, acl: bytes) -> None:
    for state in EntryState:
        row = MailboxEntry(MailboxName(name), state, location, acl)
        assert list(read_rows([format_row(row)])) == [row]


def test_a_dump_loaded_elsewhere_is_the_same_list(tmp_path: Path) -> None:
    ours, other = MailboxList.open(tmp_path / "a"), MailboxList.open(tmp_path / "b")
    ours.commit([PutEntry(entry(b"user.u%d" % i)) for i in range(2000)])
    other.commit([PutEntry(entry(b"surplus")), PutEntry(entry(b"user.u7", b"be9!"))])
    lines = list(dump(ours))
    assert load(other, read_rows(reversed(lines)), replace=False) == 2000
    assert other.count() == 2001 and not other.synchronised
    load(other, read_rows(lines), replace=True)
    assert list(dump(other)) == lines and other.synchronised
    seq = other.last_seq()
    load(other, read_rows(lines), replace=True)
    assert other.last_seq() == seq  # nothing had changed
    assert list(check(ours)) == list(check(other)) == []
    ours.close()
    other.close()


CYRUS = """{
"user.user1": {"name": "user.user1", "mtime": "1", "mbtype": "re", "partition": "default",
 "server": "be1.test", "acl": {"user1": "lrswipkxtecdan", "user2": "lrs"}, "name_history": []},
"user.new": {"name": "user.new", "mbtype": "z", "partition": "", "server": "be1.test", "acl": {}},
"user.gone": {"name": "user.gone", "mbtype": "d", "partition": "", "acl": {}}
}""".replace('default",\n', 'default",')


def test_dumps_of_cyrus_are_read() -> None:
    rows = list(read_rows(CYRUS.splitlines()))
    assert [(row.name, row.raw_location, row.is_active) for row in rows] == [
        (b"user.user1", b"be1.test!default", True),
        (b"user.new", b"be1.test!", False),
    ]
    assert rows[0].raw_acl == b"user1\tlrswipkxtecdan\tuser2\tlrs\t"
    old = ["user.a\t1 be1.test!default a\tlrs\t\n", "user.b\t0 default b\tlr\t\n"]
    found = list(read_rows(old, server="be2.test"))
    assert [row.raw_location for row in found] == [b"be1.test!default", b"be2.test!default"]
    assert found[0].raw_acl == b"a\tlrs\t"


@pytest.mark.parametrize("line", ['{"name": 5}', "nonsense", '{"name": "a"', "user.a\t0 default x"])
def test_what_is_no_row_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadSyntax, match="line 2"):
        list(read_rows(["", line]))


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    mailboxes = MailboxList.open(tmp_path)
    mailboxes.commit([PutEntry(entry(b"a")), PutEntry(entry(b"b")), RemoveEntry(MailboxName(b"b"))])
    assert list(check(mailboxes)) == []
    environment = mailboxes._environment
    index, log = environment.tables[b"index"], environment.tables[b"log"]

    def spoil(table: object, first: bytes) -> None:
        def work(transaction: object) -> None:
            cursor = transaction.cursor(db=table)  # type: ignore[attr-defined] # any LMDB transaction
            assert cursor.set_range(first)
            cursor.delete()

        environment.write(work)

    spoil(index, b"L")
    assert [fault.split()[0] for fault in check(mailboxes)] == ["ana"]
    spoil(log, b"")
    assert any("the log does not know" in fault for fault in check(mailboxes))
    mailboxes.close()


def ctl(folder: Path, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "murder", "ctl", "list", *words]
    return subprocess.run(
        command,
        input=said,
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )


def test_the_command_rebuilds_a_master_from_a_frontends_file(tmp_path: Path) -> None:
    config = tmp_path / "murder.toml"
    config.write_text('[node]\nname = "m"\ndata = "."\n')
    frontend = MailboxList.open(tmp_path / "fe")
    frontend.commit([PutEntry(entry(b"user.u%d" % i)) for i in range(50)])
    named = ("--config", str(config))
    done = ctl(tmp_path, "load", *named, "--replace", "--from", str(tmp_path / "fe"))
    assert done.returncode == 0, done.stderr
    assert "50 rows read, 50 in the list" in done.stderr
    dumped = ctl(tmp_path, "dump", *named)
    assert [json.loads(line)["name"] for line in dumped.stdout.splitlines()] == [
        one.name.decode() for one in frontend.walk()
    ]
    assert ctl(tmp_path, "check", *named).returncode == 0
    refused = ctl(tmp_path, "load", *named, "--replace", "-", said="")
    assert refused.returncode == 2 and "--yes" in refused.stderr
    assert ctl(tmp_path, "load", *named, "--replace", "--yes", "-").returncode == 0
    assert ctl(tmp_path, "dump", *named).stdout == ""
    # we have it open
    assert ctl(tmp_path, "compact", "--path", str(tmp_path / "fe")).returncode == 1
    frontend.close()
    assert ctl(tmp_path, "compact", "--path", str(tmp_path / "fe")).returncode == 0
    again = MailboxList.open(tmp_path / "fe")
    assert again.count() == 50
    again.close()


def test_the_commands_load_a_cyrus_dump_and_list_conflicts(tmp_path: Path) -> None:
    config = tmp_path / "murder.toml"
    config.write_text('[node]\nname = "m"\ndata = "."\n')
    named = ("--config", str(config))
    cyrus = """{
"user.ana": {"mbtype": "r", "server": "be1", "partition": "p", "acl": {"ana": "lrswipkxtecdan"}},
"user.ana.x": {"mbtype": "rz", "server": "be2", "partition": "", "acl": {}}
}
"""
    loaded = ctl(tmp_path, "load", *named, "-", said=cyrus)
    assert "2 rows read, 2 in the list" in loaded.stderr, loaded.stderr
    rows = [json.loads(line) for line in ctl(tmp_path, "dump", *named).stdout.splitlines()]
    assert [(row["name"], row["state"], row["location"]) for row in rows] == [
        ("user.ana", "active", "be1!p"),
        ("user.ana.x", "reserved", "be2!"),
    ]
    mailboxes = MailboxList.open(tmp_path / "mupdate" / "mailboxes")
    facts = {"holder": "be1", "claimant": "be2", "peer": "murder", "command": "ACTIVATE", "at": 1}
    octets = json.dumps(facts).encode()
    mailboxes.write(lambda transaction: transaction.put_conflict(b"user.ana", octets))
    mailboxes.close()
    (listed,) = json.loads(ctl(tmp_path, "conflicts", *named, "--json").stdout)
    assert listed == {"name": "user.ana", **facts}
    shown = ctl(tmp_path, "conflicts", *named, "--forget").stdout
    assert all(word in shown for word in ("user.ana", "be1", "be2", "ACTIVATE"))
    assert json.loads(ctl(tmp_path, "conflicts", *named, "--json").stdout) == []
