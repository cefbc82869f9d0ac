"""Which stored rows a peer asks for by LIST (RFC 3656 §4.6) or BELOW (ours), a batch at a time. Knows no connection."""

from collections.abc import Iterator, Sequence

from murder.model.name import collation_key
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import location_of_row
from murder.wire.mupdate import Command, Verb

Rows = Sequence[tuple[bytes, bytes]]


def pages(mailboxes: MailboxList, command: Command) -> Iterator[Rows]:
    """Rows as they are stored, with their keys, in the list's order; a page costs about a millisecond, and may be empty.
    Only who takes it keeps it: there may be hundreds of peers that do not read."""
    wanted = command.args[0] if command.args else b""
    if command.verb is Verb.BELOW:
        return _below(mailboxes, wanted)
    return _located(mailboxes, wanted)


def _below(mailboxes: MailboxList, name: bytes) -> Iterator[Rows]:
    """A mailbox, and what is below it."""
    row = mailboxes.row(name)
    if row is not None:
        yield [(collation_key(name), row)]
    prefix = collation_key(name + b".")
    last: bytes | None = b""
    while last is not None:
        rows, last = mailboxes.rows(last, prefix)
        page = [rows]
        del rows
        yield page.pop()


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
