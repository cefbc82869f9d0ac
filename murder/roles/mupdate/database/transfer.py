"""The mailbox list as text, out and in: JSON lines of ours, and what Cyrus' `ctl_mboxlist -d` writes. And its check.

One row a line: `{"name": …, "state": "active", "location": "server!partition", "acl": "id\\trights\\t"}`. Octets that are no
UTF-8 travel as lone surrogates, which JSON escapes, so that nothing is lost.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from murder.errors import BadSyntax
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import (
    MailboxName,
    collation_key,
    display,
    is_deleted,
    is_non_imap,
    owner_of,
)
from murder.roles.mupdate.database.change import PutEntry
from murder.roles.mupdate.database.difference import Difference
from murder.roles.mupdate.database.mboxlist import MailboxList, mark_synchronised
from murder.roles.mupdate.database.record import SEQ_OCTETS, Block, lookers, octets_of, pack_row
from murder.roles.mupdate.database.transaction import ListTransaction, check_row

LOAD_ROWS: Final = 20_000  # of one commit: the writer's lock is held for a quarter of a second
CYRUS_RESERVED: Final = frozenset("zi")  # mbtype letters: reserved, intermediate
CYRUS_DELETED: Final = "d"


def format_row(entry: MailboxEntry) -> str:
    """One line, without its end."""
    return json.dumps(
        {
            "name": _text(entry.name),
            "state": entry.state.value,
            "location": _text(entry.raw_location),
            "acl": _text(entry.raw_acl),
        }
    )


def dump(mailboxes: MailboxList) -> Iterator[str]:
    """All rows, in the list's order. A row that changes meanwhile is given as it is when its turn comes."""
    return map(format_row, mailboxes.walk())


def read_rows(lines: Iterable[str], server: str = "") -> Iterator[MailboxEntry]:
    """Rows of JSON lines, of `ctl_mboxlist -d` of Cyrus 3.6 (one JSON object) or of older ones (text).

    `server` stands where a Cyrus dump names none: a backend's own list. Raises BadSyntax with the line.
    """
    for number, line in enumerate(lines, 1):
        stripped = line.strip().rstrip(",")
        if stripped in ("", "{", "}"):
            continue
        try:
            if stripped.startswith('{"name"'):
                yield _from_ours(json.loads(stripped))
            elif stripped.startswith('"'):
                yield from _from_cyrus(json.loads("{" + stripped + "}"), server)
            else:
                yield _from_old_cyrus(line.rstrip("\r\n"), server)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadSyntax(f"line {number} is not a row of a mailbox list: {error}") from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _from_ours(row: dict[str, Any]) -> MailboxEntry:
    return MailboxEntry(
        MailboxName(octets_of(row["name"])),
        EntryState(row["state"]),
        octets_of(row["location"]),
        octets_of(row["acl"]),
    )


def _from_cyrus(rows: dict[str, Any], server: str) -> Iterator[MailboxEntry]:
    for name, row in rows.items():
        kind = row.get("mbtype", "")
        if CYRUS_DELETED in kind:
            continue
        state = EntryState.RESERVED if CYRUS_RESERVED & set(kind) else EntryState.ACTIVE
        acl = row.get("acl") or {}
        pairs = acl if isinstance(acl, str) else "".join(f"{who}\t{acl[who]}\t" for who in acl)
        place = _place(row.get("server") or server, row.get("partition") or "")
        yield MailboxEntry(MailboxName(octets_of(name)), state, place, octets_of(pairs))


def _from_old_cyrus(line: str, server: str) -> MailboxEntry:
    """`name TAB type SP [server!]partition SP acl`; type 2 is reserved."""
    name, tab, rest = line.partition("\t")
    kind, _, rest = rest.partition(" ")
    partition, _, acl = rest.partition(" ")
    if not tab or not kind.isdecimal():
        raise ValueError("neither JSON nor name, type, partition and ACL")
    state = EntryState.RESERVED if int(kind) & 2 else EntryState.ACTIVE
    place = octets_of(partition) if "!" in partition else _place(server, partition)
    return MailboxEntry(MailboxName(octets_of(name)), state, place, octets_of(acl))


def _place(server: str, partition: str) -> bytes:
    if not server:
        raise ValueError("the dump names no server: say which one it is of")
    return octets_of(f"{server}!{partition}")


def load(mailboxes: MailboxList, entries: Iterable[MailboxEntry], *, replace: bool) -> int:
    """Put all rows into the list; with `replace`, it has no others afterwards. The number of rows read.

    Commits in parts, in which other writers have their turn. With `replace` the list counts as complete then.
    """
    rows = sorted(entries, key=lambda entry: collation_key(entry.name))
    for entry in rows:
        check_row(entry)
    difference = Difference()
    for at in range(0, len(rows), LOAD_ROWS):
        part = rows[at : at + LOAD_ROWS]
        if replace:
            packed = Block(
                [collation_key(row.name) for row in part],
                [pack_row(row.name, row.state, row.raw_location, row.raw_acl) for row in part],
            )
            mailboxes.write(lambda transaction: difference.apply(transaction, packed))  # noqa: B023 - runs at once
        else:
            mailboxes.commit([PutEntry(entry) for entry in part])
    if replace:

        def finish(transaction: ListTransaction) -> None:
            difference.finish(transaction)
            transaction.apply(mark_synchronised())

        mailboxes.write(finish)
    return len(rows)


def check(mailboxes: MailboxList) -> Iterator[str]:
    """One sentence for each thing that is wrong in the list: order, indexes, log, counts. Works on a list at rest; one
    that changes meanwhile may show what is only just being changed."""
    last = b""
    servers: dict[str, int] = {}
    for entry in mailboxes.walk():
        key = collation_key(entry.name)
        if key <= last:
            yield f"{display(entry.name)} stands out of order"
        last = key
        servers[entry.server] = servers.get(entry.server, 0) + 1
    if servers != dict(mailboxes.count_by_server()):
        yield f"rows by server are {servers}, counted are {dict(mailboxes.count_by_server())}"
    for server, rows in servers.items():
        indexed = sum(1 for _ in mailboxes.at_server(server))
        if indexed != rows:
            yield f"the index has {indexed} rows at {server}, the list {rows}"
    logged = {
        change.entry.name: change.entry.seq
        for change in mailboxes.changes_after(0)
        if isinstance(change, PutEntry)
    }
    for entry in mailboxes.walk():
        if logged.pop(entry.name, None) != entry.seq:
            yield f"the log does not know the last change of {display(entry.name)}"
    for name in logged:
        yield f"the log knows {display(name)}, the list does not"
    yield from _check_lookers(mailboxes)


def seen_by(entry: MailboxEntry) -> set[str]:
    """Every identifier that alone may look the mailbox up, the owner included."""
    row = bytes(SEQ_OCTETS) + pack_row(entry.name, entry.state, entry.raw_location, entry.raw_acl)
    identifiers = lookers(collation_key(entry.name), row)
    owner = owner_of(entry.name)
    users = {
        identifier
        for identifier in identifiers
        if not identifier.startswith(b"-") and b"-" + identifier not in identifiers
    }
    return {_text(user) for user in users} | ({owner} if owner else set())


def _check_lookers(mailboxes: MailboxList) -> Iterator[str]:
    """Whether everybody who may look a mailbox up finds it."""
    expected: dict[str, int] = {}
    for entry in mailboxes.walk():
        if entry.is_active and not (is_deleted(entry.name) or is_non_imap(entry.name)):
            for who in seen_by(entry):
                expected[who] = expected.get(who, 0) + 1
    for who, rows in expected.items():
        indexed = sum(1 for _ in mailboxes.visible([who]))
        if indexed != rows:
            yield f"{who} may see {rows} mailboxes, the index shows {indexed}"
