"""COPY and MOVE: within one backend a relay, across two a copy by FETCH and APPEND, all or nothing.

RFC 3501 §6.4.7, RFC 6851, RFC 4315. Flags, keywords and dates go along; COPYUID is made of the target's APPENDUIDs. If
anything fails, what already is on the target is removed again and the source is whole. MOVE lets the source go only when
all is on the target, and only of the messages that were copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.frontend.imap.append import find_target
from murder.frontend.imap.dialogue import FrontendImap
from murder.login.imap import Running
from murder.model.message import Uid, UidValidity
from murder.model.name import MailboxName
from murder.model.seqset import compress_in_order
from murder.net.relay import ImapUpstream, Reply
from murder.wire.imap.command import Command
from murder.wire.imap.copy import format_copyuid, parse_appenduid, parse_copy
from murder.wire.imap.date import format_date_time
from murder.wire.imap.fetched import Fetched, parse_fetched
from murder.wire.imap.response import status_line
from murder.wire.imap.seqset import format_ranges
from murder.wire.token import Scanner, client_astring


def run_copy(dialogue: FrontendImap, command: Command) -> Running:
    return _copy(dialogue, command)


async def _copy(dialogue: FrontendImap, command: Command) -> None:
    scanner = Scanner(command.octets, command.start)
    request = parse_copy(scanner)
    entry = await find_target(dialogue, request.mailbox)
    selected = dialogue.selected
    assert selected is not None, "the table asks for it"
    if entry.server == selected.server:
        await dialogue.relay_at(entry.server, command)
        return
    sequence = command.octets[command.start + 1 :].split(b" ", 1)[0]
    crossing = _Crossing(
        dialogue, selected.upstream, await dialogue.upstream(entry.server), request.mailbox
    )
    by_uid, is_move = command.name.startswith(b"UID "), command.name.endswith(b"MOVE")
    if is_move:
        await _check_may_remove(dialogue, selected.upstream, selected.name)
    copied = await crossing.copy(await crossing.rows(sequence, by_uid))
    if not copied.sources:
        dialogue.send_ok(command, "Nothing to copy")
        return
    code = copied.code
    if is_move:
        dialogue.send(status_line(b"*", b"OK", "Copied", code))
        await crossing.remove(copied.sources)
        code = b""
    dialogue.send_ok(command, "Completed", code)


async def _check_may_remove(
    dialogue: FrontendImap, source: ImapUpstream, name: MailboxName
) -> None:
    """MOVE needs `t` and `e` at the source: ask before anything is copied. Raises Refusal."""
    reply = await source.ask(b"MYRIGHTS " + client_astring(dialogue.external(name)))
    rights = next(
        (line.split()[-1] for line in reply.untagged if line.upper().startswith(b"* MYRIGHTS")), b""
    )
    if not reply.is_ok or not {*b"te"} <= {*rights}:
        raise Refusal(Code.NO_PERMISSION, "You may not remove messages from this mailbox")


@dataclass(frozen=True, slots=True)
class _Copied:
    """What is on the target now, pair by pair."""

    uid_validity: UidValidity | None
    sources: Sequence[Uid]
    targets: Sequence[Uid]

    @property
    def code(self) -> bytes:
        """COPYUID, where the target told every UID."""
        if self.uid_validity is None or len(self.targets) != len(self.sources):
            return b""
        return format_copyuid(self.uid_validity, self.sources, self.targets)


class _Crossing:
    """One COPY or MOVE from the selected mailbox to a mailbox of another backend."""

    def __init__(
        self, dialogue: FrontendImap, source: ImapUpstream, target: ImapUpstream, mailbox: bytes
    ) -> None:
        self._dialogue = dialogue
        self._source = source
        self._target = target
        self._mailbox = client_astring(mailbox)

    async def _fetch(self, command: bytes) -> list[Fetched]:
        """The answers to a FETCH of ours; what else the backend tells passes to the client."""
        rows: list[Fetched] = []

        def take(line: bytes) -> None:
            words = line.split(b" ", 3)
            if len(words) == 4 and words[2].upper() == b"FETCH":
                fetched = Fetched()
                parse_fetched(Scanner(line, line.index(b"(") - 1), fetched)
                if fetched.uid is not None:
                    rows.append(fetched)
                    return
            self._dialogue.send(line)

        reply = await self._source.ask(command, untagged=take)
        if not reply.is_ok:
            raise _refused(reply)
        return rows

    async def rows(self, sequence: bytes, by_uid: bool) -> list[Fetched]:
        """UID, flags, date of each message to be copied, in UID order."""
        verb = b"UID FETCH " if by_uid else b"FETCH "
        rows = await self._fetch(verb + sequence + b" (UID FLAGS INTERNALDATE)")
        unique = {row.uid: row for row in rows if row.uid is not None}
        return [unique[uid] for uid in sorted(unique)]

    async def copy(self, rows: Sequence[Fetched]) -> _Copied:
        """Append them one by one; on a failure remove what was appended, and raise it."""
        sources: list[Uid] = []
        targets: list[Uid] = []
        uid_validity: UidValidity | None = None
        try:
            for row in rows:
                assert row.uid is not None
                octets = await self._octets(row.uid)
                if octets is None:
                    continue  # it vanished meanwhile: survivors only
                reply = await self._append(row, octets)
                if not reply.is_ok:
                    raise _refused(reply)
                sources.append(row.uid)
                if reply.code.upper().startswith(b"APPENDUID"):
                    uid_validity, uids = parse_appenduid(reply.code)
                    targets += uids
        except (Refusal, UpstreamFailure, BadSyntax):
            await self._undo(targets)
            raise
        return _Copied(uid_validity, sources, targets)

    async def _octets(self, uid: Uid) -> bytes | None:
        for row in await self._fetch(b"UID FETCH %d (UID BODY.PEEK[])" % uid):
            if row.uid == uid and row.sections.get(b"BODY[]") is not None:
                return row.sections[b"BODY[]"]
        return None

    async def _append(self, row: Fetched, octets: bytes) -> Reply:
        flags = " ".join(sorted(row.flags or ())).encode()
        date = b""
        if row.internal_date is not None:
            date = b' "' + format_date_time(row.internal_date).strip(b'"') + b'"'
        tag = self._target.next_tag()
        head = b"%s APPEND %s (%s)%s {%d+}\r\n" % (tag, self._mailbox, flags, date, len(octets))
        self._target.write(head + octets + b"\r\n")
        await self._target.drain()
        return await self._target.answer(tag)

    async def _undo(self, targets: Sequence[Uid]) -> None:
        """Best effort, logged where it fails: then the target has copies too many, and nothing is lost."""
        if not targets:
            return
        uids = format_ranges(compress_in_order(targets))
        try:
            if (await self._target.ask(b"SELECT " + self._mailbox)).is_ok:
                await self._target.ask(b"UID STORE " + uids + b" +FLAGS.SILENT (\\Deleted)")
                await self._target.ask(b"UID EXPUNGE " + uids)
                await self._target.ask(b"UNSELECT")
        except UpstreamFailure as failure:
            self._dialogue.log.warning(
                "copy.not_undone",
                backend=failure.server,
                kind=failure.kind.value,
                uids=uids.decode(),
            )

    async def remove(self, uids: Sequence[Uid]) -> None:
        """Expunge exactly these at the source; the client is told as it happens."""
        chosen = format_ranges(compress_in_order(uids))
        send = self._dialogue.send
        for command in (
            b"UID STORE " + chosen + b" +FLAGS.SILENT (\\Deleted)",
            b"UID EXPUNGE " + chosen,
        ):
            reply = await self._source.ask(command, untagged=send)
            if not reply.is_ok:
                raise Refusal(
                    Code.NONE,
                    f"The messages are copied, but could not be removed here: {reply.text}",
                )


def _refused(reply: Reply) -> Refusal:
    """What a backend refused, as it said it."""
    word, _, detail = reply.code.decode("ascii", "replace").partition(" ")
    known = {code.value: code for code in Code}
    return Refusal(known.get(word.upper(), Code.NONE), reply.text, detail)
