"""Which stored rows a peer asks for by LIST (RFC 3656 §4.6), BELOW, HEADS, GRANTED, PREFIX or SERVERS (ours), some at a
time. Knows no connection."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from murder.errors import BadSyntax
from murder.model.entry import EntryState
from murder.model.name import MAX_NAME_OCTETS, collation_key
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import (
    ACTIVE,
    FLAGS_AT,
    SEQ_OCTETS,
    Head,
    acl_of_row,
    location_of_row,
    pack_row,
)
from murder.wire.mupdate import Command, Verb

MOST_HEADS: Final = 10_000  # of one command
HEADS: Final = 200  # of a page

Rows = Sequence[tuple[bytes, bytes]]


def pages(mailboxes: MailboxList, command: Command) -> Iterator[Rows]:
    """Rows as they are stored, with their keys, in the list's order; a page costs about a millisecond, and may be empty.
    Only who takes it keeps it: there may be hundreds of peers that do not read."""
    wanted = command.args[0] if command.args else b""
    if command.verb is Verb.BELOW:
        return _below(mailboxes, wanted)
    if command.verb is Verb.HEADS:
        return _heads(mailboxes, wanted, command.args[1])
    if command.verb is Verb.GRANTED:
        return _granted(mailboxes, wanted)
    if command.verb is Verb.PREFIX:
        return _beginning(mailboxes, collation_key(wanted))
    if command.verb is Verb.SERVERS:
        return _servers(mailboxes)
    return _located(mailboxes, wanted)


def _below(mailboxes: MailboxList, name: bytes) -> Iterator[Rows]:
    """A mailbox, and what is below it."""
    row = mailboxes.row(name)
    if row is not None:
        yield [(collation_key(name), row)]
    yield from _beginning(mailboxes, collation_key(name + b"."))


def _beginning(mailboxes: MailboxList, prefix: bytes) -> Iterator[Rows]:
    last: bytes | None = b""
    while last is not None:
        rows, last = mailboxes.rows(last, prefix)
        page = [rows]
        del rows
        yield page.pop()


def _servers(mailboxes: MailboxList) -> Iterator[Rows]:
    """One for each server, from the counts that every commit keeps: the same cost however many mailboxes they have."""
    counts = {
        server.encode("utf-8", "surrogateescape"): count
        for server, count in mailboxes.count_by_server().items()
    }
    rows = {
        collation_key(server): pack_row(server, EntryState.ACTIVE, server, b"%d" % count)
        for server, count in counts.items()
        if server
    }
    yield [(key, bytes(SEQ_OCTETS) + row) for key, row in sorted(rows.items())]


def _heads(mailboxes: MailboxList, after: bytes, count: bytes) -> Iterator[Rows]:
    """So many behind a name. Raises BadSyntax."""
    if len(after) > MAX_NAME_OCTETS:
        raise BadSyntax(f"a name has {MAX_NAME_OCTETS} octets at most")
    if not count.isdigit() or len(count) > 5 or int(count) > MOST_HEADS:
        raise BadSyntax(f"HEADS tells {MOST_HEADS} rows at most")
    heads = islice(mailboxes.heads_after(after), int(count))
    while rows := [_without_acl(head) for head in islice(heads, HEADS)]:
        yield rows


def _without_acl(head: Head) -> tuple[bytes, bytes]:
    state = EntryState.ACTIVE if head.is_active else EntryState.RESERVED
    return collation_key(head.name), bytes(SEQ_OCTETS) + pack_row(
        head.name, state, head.raw_location, b""
    )


def _granted(mailboxes: MailboxList, identifier: bytes) -> Iterator[Rows]:
    """Active rows whose access list has this identifier, or what is taken away from it. All rows are looked at: the index
    has only who may look a mailbox up, and a right to post is one, too."""
    if not identifier:
        return
    words = {identifier, b"-" + identifier}
    last: bytes | None = b""
    while last is not None:
        rows, last = mailboxes.rows(last)
        page = [[pair for pair in rows if identifier in pair[1] and _names(pair[1], words)]]
        del rows
        yield page.pop()


def _names(row: bytes, words: set[bytes]) -> bool:
    return bool(row[FLAGS_AT] & ACTIVE) and not words.isdisjoint(acl_of_row(row).split(b"\t")[::2])


def _located(mailboxes: MailboxList, wanted: bytes) -> Iterator[Rows]:
    """All rows, or those whose location begins so."""
    server, mark, partition = wanted.partition(b"!")
    last: bytes | None = b""
    while last is not None:
        if mark and not partition:
            rows, last = mailboxes.rows_at_server(server, last)
        else:
            rows, last = mailboxes.rows(last)
            rows = [pair for pair in rows if location_of_row(pair[1]).startswith(wanted)]
        page = [rows]
        del rows
        yield page.pop()
