"""Messages from one backend to another, for COPY and MOVE: FETCH there, APPEND here, in bounded memory.

Small messages are fetched many at once, large ones piece by piece. Where the target offers MULTIAPPEND (RFC 3502) a group
of messages is one command. What was appended before a failure is removed again.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.flag import fitting
from murder.model.message import Uid, UidValidity
from murder.model.seqset import compress, compress_in_order
from murder.net.outgoing.exchange import Reply
from murder.net.outgoing.relay import ImapUpstream
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.internal import execute, refusal_of
from murder.wire.imap.date import format_date_time
from murder.wire.imap.flag import format_flags
from murder.wire.imap.mail.copy import format_copyuid, parse_appenduid, parse_removed
from murder.wire.imap.mail.fetched import Fetched, parse_fetch_response
from murder.wire.imap.seqset import format_ranges
from murder.wire.token import client_astring

# of small messages fetched at once; larger ones come in pieces of this
BATCH_OCTETS: Final = 512 * 1024
BATCH_MESSAGES: Final = 50
GROUP_MESSAGES: Final = 500  # of one MULTIAPPEND
GROUP_OCTETS: Final = 64 * 1024 * 1024
UIDS_OF_COMMAND: Final = 500  # so that no line becomes too long
NO_VALIDITY: Final = UidValidity(0)


@dataclass(frozen=True, slots=True)
class MessageInfo:
    """A message at the source, without its octets."""

    uid: Uid
    size: int
    head: bytes  # ` (flags) "date"`, as APPEND takes it


@dataclass(slots=True)
class Copied:
    """What is on the target now, pair by pair; `targets` is shorter where the target does not tell UIDs."""

    uid_validity: UidValidity = NO_VALIDITY
    sources: list[Uid] = field(default_factory=list)
    targets: list[Uid] = field(default_factory=list)

    @property
    def code(self) -> bytes:
        """COPYUID, where the target has told every UID."""
        if not self.targets or len(self.targets) != len(self.sources):
            return b""
        return format_copyuid(self.uid_validity, self.sources, self.targets)


class Source:
    """The selected mailbox, to fetch from. What its backend tells besides passes to the client."""

    def __init__(self, dialogue: FrontendImap, upstream: ImapUpstream) -> None:
        self._dialogue = dialogue
        self._upstream = upstream

    async def messages(self, fetch: bytes) -> list[MessageInfo]:
        """The messages that `UID FETCH set` (or FETCH) names, in UID order. Raises Refusal, BadSyntax, UpstreamFailure."""
        infos: dict[Uid, MessageInfo] = {}

        def take(fetched: Fetched) -> bool:
            if fetched.uid is None or fetched.size is None:
                return False
            # a message of before the bounds has more, and no server need take it with them
            head = b" " + format_flags(fitting(fetched.flags or ()))
            if fetched.internal_date is not None:
                head += b" " + format_date_time(fetched.internal_date)
            infos[fetched.uid] = MessageInfo(fetched.uid, fetched.size, head)
            return True

        await self._fetch(fetch + b" (UID FLAGS INTERNALDATE RFC822.SIZE)", take)
        return [infos[uid] for uid in sorted(infos)]

    async def bodies(self, messages: Sequence[MessageInfo]) -> dict[Uid, bytes]:
        """The octets of small messages; one that has just been expunged is missing."""
        texts: dict[Uid, bytes] = {}

        def take(fetched: Fetched) -> bool:
            octets = fetched.sections.get(b"BODY[]")
            if fetched.uid is None or octets is None:
                return False
            texts[fetched.uid] = octets
            return True

        uids = format_ranges(compress(message.uid for message in messages))
        await self._fetch(b"UID FETCH " + uids + b" (UID BODY.PEEK[])", take)
        return texts

    async def piece(self, uid: Uid, offset: int) -> bytes:
        """Octets of a large message from `offset` on, at most BATCH_OCTETS; b"" if it has gone."""
        pieces: list[bytes] = []

        def take(fetched: Fetched) -> bool:
            octets = fetched.sections.get(b"BODY[]<%d>" % offset)
            if fetched.uid != uid or octets is None:
                return False
            pieces.append(octets)
            return True

        items = b" (UID BODY.PEEK[]<%d.%d>)" % (offset, BATCH_OCTETS)
        await self._fetch(b"UID FETCH %d" % uid + items, take)
        return pieces[0] if pieces else b""

    async def still_there(self, uids: Sequence[Uid]) -> set[Uid]:
        """Those of these messages that nobody has removed meanwhile. Raises Refusal, BadSyntax, UpstreamFailure."""
        present: set[Uid] = set()

        def take(fetched: Fetched) -> bool:
            if fetched.uid is None or fetched.flags is not None:
                return False
            present.add(fetched.uid)
            return True

        for at in range(0, len(uids), UIDS_OF_COMMAND):
            chosen = format_ranges(compress(uids[at : at + UIDS_OF_COMMAND]))
            await self._fetch(b"UID FETCH " + chosen + b" (UID)", take)
        return present

    async def gone(self, uids: Sequence[Uid], keep: Callable[[bytes], bool]) -> list[Uid]:
        """Those of these that are not there, behind a removal that was refused: NO may be said of what came behind it.
        `keep` takes the news. Raises UpstreamFailure where nobody knows."""
        # what has gone may be read until it is told
        reply = await execute(self._dialogue, self._upstream, b"NOOP", keep)
        try:
            if not reply.is_ok:
                raise refusal_of(reply)
            present = await self.still_there(uids)
        except (Refusal, BadSyntax) as error:
            raise self._upstream.failure(UpstreamKind.UNAVAILABLE, str(error)) from error
        return [uid for uid in uids if uid not in present]

    async def _fetch(self, command: bytes, take: Callable[[Fetched], bool]) -> None:
        def take_response(response: bytes) -> bool:
            fetched = parse_fetch_response(response)
            return fetched is not None and take(fetched)

        reply = await execute(self._dialogue, self._upstream, command, take_response)
        if reply.word == b"BAD":
            code = refusal_of(reply).code
            raise BadSyntax(reply.text, code=None if code is Code.NONE else code)
        if not reply.is_ok:
            raise refusal_of(reply)


class Crossing:
    """One COPY or MOVE from the selected mailbox to a mailbox of another backend."""

    def __init__(self, dialogue: FrontendImap, source: Source, server: str, mailbox: bytes) -> None:
        self._dialogue = dialogue
        self._source = source
        self._server = server
        self._mailbox = client_astring(mailbox)
        self._copied = Copied()

    async def copy(self, messages: Sequence[MessageInfo]) -> Copied:
        """Append them all; on a failure remove what was appended, and raise it."""
        target = await self._dialogue.upstream(self._server)
        multiple = b"MULTIAPPEND" in target.capabilities
        try:
            for group in _groups(messages, GROUP_MESSAGES if multiple else 1):
                await self._append(target, group)
        except BaseException:
            await self._undo()
            raise
        return self._copied

    async def _append(self, target: ImapUpstream, group: Sequence[MessageInfo]) -> None:
        """One APPEND, which stores all of the group or nothing. Raises Refusal, UpstreamFailure."""
        command = _Append(self._source, target, self._mailbox, group)
        if not await command.begin():
            return  # all of them have been expunged meanwhile
        reply = await target.stream(command.tag, command.pieces(), untagged=_ignore)
        if not reply.is_ok:
            raise _as_copy(reply)
        copied = self._copied
        copied.sources += command.uids
        if reply.code[:9].upper() == b"APPENDUID":
            try:
                copied.uid_validity, uids = parse_appenduid(reply.code)
            except BadSyntax as error:
                raise target.failure(UpstreamKind.PROTOCOL, str(error)) from error
            copied.targets += uids

    async def without_vanished(self) -> Copied:
        """For a MOVE: what somebody else has taken away meanwhile is taken back, so that it is not there twice. Raises
        Refusal, BadSyntax, UpstreamFailure."""
        return await self.keep(await self._source.still_there(self._copied.sources))

    async def keep(self, chosen: Collection[Uid]) -> Copied:
        """Take back the copies of all others, where the target has told which they are."""
        copied = self._copied
        if len(chosen) == len(copied.sources):
            return copied
        if len(copied.targets) != len(copied.sources):
            await self._take_back([])
            return copied
        pairs = list(zip(copied.sources, copied.targets, strict=True))
        await self._take_back([target for source, target in pairs if source not in chosen])
        kept = [pair for pair in pairs if pair[0] in chosen]
        copied.sources = [source for source, _ in kept]
        copied.targets = [target for _, target in kept]
        return copied

    async def _undo(self) -> None:
        copied = self._copied
        if copied.sources:
            knows_all = len(copied.targets) == len(copied.sources)
            await self._take_back(copied.targets if knows_all else [])

    async def _take_back(self, targets: Sequence[Uid]) -> None:
        await take_back(self._dialogue, self._server, self._mailbox, targets)


async def take_back(
    dialogue: FrontendImap, server: str, mailbox: bytes, uids: Sequence[Uid]
) -> None:
    """Remove what has just been put into a mailbox (an astring) of another backend. Best effort, logged where it fails:
    then copies too many are there, and nothing is lost."""
    problem = "the target does not tell UIDs"
    if uids:
        try:
            target = await dialogue.upstream(server)
            if (await target.execute(b"SELECT " + mailbox)).is_ok:
                await remove(dialogue, target, uids)
                await target.execute(b"UNSELECT")
                return
            problem = "the target cannot be selected"
        except (Refusal, UpstreamFailure) as error:
            problem = str(error)
    dialogue.log.warning("copy.not_undone", backend=server, messages=len(uids), problem=problem)


class _Append:
    """The octets of one APPEND, fetched as they are sent. `uids`: what is in it, in order."""

    def __init__(
        self, source: Source, target: ImapUpstream, mailbox: bytes, group: Sequence[MessageInfo]
    ) -> None:
        self._source = source
        self._target = target
        self._batches = _batches(group)
        self._bodies: dict[Uid, bytes] = {}
        self._batch: Sequence[MessageInfo] = ()
        self.tag = target.next_tag()
        self._start = self.tag + b" APPEND " + mailbox
        self.uids: list[Uid] = []

    async def begin(self) -> bool:
        """Fetch until there is something to send. False: nothing of the group exists any more."""
        for batch in self._batches:
            self._batch = batch
            self._bodies = await self._first_octets(batch)
            if self._bodies:
                return True
        return False

    async def _first_octets(self, batch: Sequence[MessageInfo]) -> dict[Uid, bytes]:
        if batch[0].size <= BATCH_OCTETS:
            return await self._source.bodies(batch)
        octets = await self._source.piece(batch[0].uid, 0)
        return {batch[0].uid: octets} if octets else {}

    async def pieces(self) -> AsyncIterator[bytes]:
        """Behind `begin`: the whole command. Raises Refusal where a large message ends too early."""
        yield self._start
        while self._bodies:
            for message in self._batch:
                if message.uid in self._bodies:
                    self.uids.append(message.uid)
                    async for octets in self._message(message, self._bodies.pop(message.uid)):
                        yield octets
                if self._target.is_lost:
                    return
            await self.begin()
        yield b"\r\n"

    async def _message(self, message: MessageInfo, octets: bytes) -> AsyncIterator[bytes]:
        is_whole = message.size <= BATCH_OCTETS
        size = len(octets) if is_whole else message.size
        yield message.head + b" {%d+}\r\n" % size + octets
        sent = len(octets)
        while sent < size and not self._target.is_lost:
            octets = await self._source.piece(message.uid, sent)
            if not octets or sent + len(octets) > size:
                raise Refusal(Code.EXPUNGE_ISSUED, "A message has gone while it was copied")
            sent += len(octets)
            yield octets


@dataclass(slots=True)
class Removal:
    """What has been removed at the source. `news` is what the client is to be told of it, `refusal` what was in the way
    of the rest."""

    removed: list[Uid] = field(default_factory=list)
    news: list[bytes] = field(default_factory=list)
    code: bytes = b""  # for the tagged OK of a client that resynchronises (RFC 7162 §3.2.7)
    refusal: Refusal | None = None


async def remove(dialogue: FrontendImap, upstream: ImapUpstream, uids: Sequence[Uid]) -> bytes:
    """Expunge exactly these from the mailbox selected there; the code of the last OK. Raises Refusal, UpstreamFailure."""
    code = b""
    for chosen in _commands_of(uids):
        for command in (b"UID STORE %s +FLAGS.SILENT (\\Deleted)", b"UID EXPUNGE %s"):
            reply = await execute(dialogue, upstream, command % chosen)
            if not reply.is_ok:
                raise Refusal(
                    refusal_of(reply).code,
                    f"The messages are copied, but could not be removed here: {reply.text}",
                )
        code = reply.code
    return code if code.upper().startswith(b"HIGHESTMODSEQ ") else b""


async def remove_exactly(
    dialogue: FrontendImap,
    upstream: ImapUpstream,
    source: Source,
    uids: Sequence[Uid],
    removal: Removal,
) -> None:
    """Remove these, of `source` at `upstream`, by UID XREMOVE, which tells what this session has removed. Raises
    UpstreamFailure: then nobody knows."""

    def keep(response: bytes) -> bool:
        removal.news.append(response)
        return True

    for at in range(0, len(uids), UIDS_OF_COMMAND):
        some = uids[at : at + UIDS_OF_COMMAND]
        command = b"UID XREMOVE " + format_ranges(compress_in_order(some))
        reply = await execute(dialogue, upstream, command, keep)
        if not reply.is_ok:
            removal.refusal = refusal_of(reply)
            removal.removed += await source.gone(some, keep)
            return
        try:
            modseq, removed = parse_removed(reply.code)
        except BadSyntax as error:
            raise upstream.failure(UpstreamKind.PROTOCOL, str(error)) from error
        removal.removed += removed
        if removed and b"QRESYNC" in dialogue.enabled:
            removal.code = b"HIGHESTMODSEQ %d" % modseq


def _commands_of(uids: Sequence[Uid]) -> Iterator[bytes]:
    """Sets that are short enough for one line each."""
    for at in range(0, len(uids), UIDS_OF_COMMAND):
        yield format_ranges(compress_in_order(uids[at : at + UIDS_OF_COMMAND]))


def _groups(messages: Sequence[MessageInfo], most: int) -> Iterator[Sequence[MessageInfo]]:
    """What goes into one APPEND each."""
    return _cut(messages, most, GROUP_OCTETS)


def _batches(group: Sequence[MessageInfo]) -> Iterator[Sequence[MessageInfo]]:
    """What is fetched at once: small messages together, a large one alone."""
    return _cut(group, BATCH_MESSAGES, BATCH_OCTETS)


def _cut(
    messages: Sequence[MessageInfo], most: int, most_octets: int
) -> Iterator[Sequence[MessageInfo]]:
    begin = octets = 0
    for at, message in enumerate(messages):
        if at > begin and (at - begin >= most or octets + message.size > most_octets):
            yield messages[begin:at]
            begin, octets = at, 0
        octets += message.size
    if begin < len(messages):
        yield messages[begin:]


def _as_copy(reply: Reply) -> Refusal:
    """The target's refusal; what it calls our bad syntax is not the client's."""
    if reply.word == b"BAD":
        return Refusal(Code.CANNOT, f"The other backend does not take a message: {reply.text}")
    return refusal_of(reply)


def _ignore(response: bytes) -> None:
    """Nobody has a mailbox selected there."""
