"""What sessions do with messages, and the node by itself, for the mail log where it is "full": a line for so many messages
of each command.

A message is named by its place, `MAILBOXID.UIDVALIDITY.UID`, which stays whatever the mailbox is called and on whichever
backend it is; so `murder ctl message trace` follows it from place to place.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from murder.api.store import Mailbox, NewMessage
from murder.model.carried import CarriedIdentity
from murder.model.message import Message, Uid
from murder.model.name import display
from murder.net.turns import Turn
from murder.serve.mail_log import HEAD_OCTETS, HeadOf, MailLog

CHUNK: Final = 100  # messages of a line: about 8 KB


class Keeper(Protocol):
    """Who has the mail log: the services of a worker, or what it does by itself."""

    @property
    def mail_log(self) -> MailLog: ...


class Doer(Protocol):
    """A client's session, of whatever protocol; or what a node does by itself."""

    @property
    def service(self) -> Keeper: ...

    def log_facts(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Unattended:
    """What a node does by itself: a rule of age, a script that sees what clients do. `facts` name it."""

    mail_log: MailLog
    facts: Mapping[str, object]

    @property
    def service(self) -> Keeper:
        return self

    def log_facts(self) -> dict[str, object]:
        return {"role": "backend", **self.facts}


async def place_of(mailbox: Mailbox, uid: int) -> str:
    """What stays of a message's address."""
    return f"{await _prefix_of(mailbox)}{uid}"


async def _prefix_of(mailbox: Mailbox) -> str:
    return f"{mailbox.mailbox_id}.{(await mailbox.status()).uid_validity}."


async def trace_append(
    doer: Doer, mailbox: Mailbox, messages: Sequence[NewMessage], uids: Sequence[Uid]
) -> None:
    """A line for each: only here its Message-ID is at hand."""
    mail_log = doer.service.mail_log
    if not mail_log.is_full or not uids:
        return
    prefix, turn = await _prefix_of(mailbox), Turn()
    for new, uid in zip(messages, uids, strict=True):
        head = HeadOf()
        octets = new.incoming.octets()
        head.feed(bytes(octets[:HEAD_OCTETS]))
        mail_log.info(
            "message.appended",
            {
                **doer.log_facts(),
                "message_id": head.message_id,
                "mailbox": display(mailbox.name),
                "size": new.incoming.size,
                "messages": [{"uid": uid, "place": f"{prefix}{uid}"}],
            },
        )
        if turn.is_over:
            await turn.rest()


async def trace_copies(
    doer: Doer, source: Mailbox, target: Mailbox, copied: Mapping[Uid, Uid], *, moving: bool
) -> None:
    """Of COPY, MOVE, and the RENAME of an INBOX."""
    mail_log = doer.service.mail_log
    if not mail_log.is_full or not copied:
        return
    here, there = await _prefix_of(source), await _prefix_of(target)
    names = {"mailbox": display(source.name), "target": display(target.name)}
    facts = {**doer.log_facts(), **names}
    async for chunk in _chunks(_changed(copied, here, there)):
        line = {**facts, "messages": chunk}
        mail_log.info("message.moved" if moving else "message.copied", line, len(chunk))


async def trace_return(doer: Doer, mailbox: Mailbox, back: Mapping[Uid, Uid]) -> None:
    """Of XUNEXPUNGE: by the UIDs that they had, and have now."""
    mail_log = doer.service.mail_log
    if not mail_log.is_full or not back:
        return
    prefix = await _prefix_of(mailbox)
    facts = {**doer.log_facts(), "mailbox": display(mailbox.name)}
    async for chunk in _chunks(_changed(back, prefix, prefix)):
        mail_log.info("message.unexpunged", {**facts, "messages": chunk}, len(chunk))


async def trace_restore(
    doer: Doer,
    mailbox: Mailbox,
    source: str,
    was: CarriedIdentity | None,
    rows: Sequence[tuple[Message, memoryview | None]],
) -> None:
    """Of what an operator brings back from a backup; `was`: what the mailbox was there. Each with its Message-ID:
    earlier logs may be lost with the disk. Those without octets were there before."""
    mail_log = doer.service.mail_log
    if not mail_log.is_full:
        return
    here = await _prefix_of(mailbox)
    there = "" if was is None else f"{was.mailbox_id}.{was.uid_validity}."
    facts = {**doer.log_facts(), "mailbox": display(mailbox.name), "source": source}
    async for chunk in _chunks(_restored(rows, there, here)):
        mail_log.info("message.restored", {**facts, "messages": chunk}, len(chunk))


def _restored(
    rows: Sequence[tuple[Message, memoryview | None]], there: str, here: str
) -> Iterator[Mapping[str, object]]:
    for message, octets in rows:
        if octets is not None:
            uid, head = message.uid, HeadOf()
            head.feed(bytes(octets[:HEAD_OCTETS]))
            known = {"message_id": head.message_id} if head.message_id else {}
            place = {"place": f"{there}{uid}"} if there else {}
            yield {"uid": uid, **place, "new_uid": uid, "to": f"{here}{uid}", **known}


def _changed(uids: Mapping[Uid, Uid], here: str, there: str) -> Iterator[Mapping[str, object]]:
    """Messages that are at other places now, or also there."""
    for old, new in uids.items():
        yield {"uid": old, "place": f"{here}{old}", "new_uid": new, "to": f"{there}{new}"}


async def trace_expunge(doer: Doer, mailbox: Mailbox, uids: Iterable[Uid]) -> None:
    """Of EXPUNGE, CLOSE, REPLACE, POP3's QUIT, a frontend's MOVE to another backend, and rules of age."""
    mail_log = doer.service.mail_log
    if not mail_log.is_full or not uids:
        return
    prefix = await _prefix_of(mailbox)
    rows = ({"uid": uid, "place": f"{prefix}{uid}"} for uid in uids)
    facts = {**doer.log_facts(), "mailbox": display(mailbox.name)}
    async for chunk in _chunks(rows):
        mail_log.info("message.expunged", {**facts, "messages": chunk}, len(chunk))


async def _chunks(
    rows: Iterable[Mapping[str, object]],
) -> AsyncIterator[Sequence[Mapping[str, object]]]:
    """For a line each, with rests between."""
    left, turn = iter(rows), Turn()
    while chunk := list(islice(left, CHUNK)):
        yield chunk
        if turn.is_over:
            await turn.rest()
