"""FETCH and UID FETCH (RFC 3501 §6.4.5 and extensions).

What a store knows of messages is answered batch by batch; octets of messages stream slice by slice, so that neither
a large mailbox nor a large message is held in memory.
"""

import functools
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Final

from murder.api.disk import DamagedMessageError
from murder.api.store import Numbers
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.mime.mapped import MAPPED_OCTETS, let_go
from murder.mime.nul import has_nul
from murder.model.flag import SEEN, FlagChange
from murder.model.message import Flagged, Message, SeqNum, Uid, portions
from murder.model.query.fetch import (
    WHOLE_MESSAGE,
    Attribute,
    BodyItem,
    FetchItem,
    FetchRequest,
    Form,
    Preview,
)
from murder.model.seqset import EVERYTHING
from murder.roles.backend.changes.powers import TELLS_FLAGS, TELLS_SUMMARIES
from murder.roles.backend.changes.updates import MANY
from murder.roles.backend.imap.answers import FETCH, Flags, flags_key, plain
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.flags import (
    KEPT_FORM_OCTETS,
    LONG_FORMS,
    MOST_KEYWORDS,
    FlagForms,
)
from murder.roles.backend.imap.mail.qresync import tell_vanished
from murder.roles.backend.imap.message_sets import batches, ranges_of, uids_of, window
from murder.roles.backend.messages.content import Reader, sized, small_octets
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.date import format_date_time
from murder.wire.imap.mail.fetch import (
    cut,
    format_body,
    format_body_head,
    format_id_piece,
    format_preview_piece,
    format_save_date_piece,
    item_name,
    parse_fetch,
)

BODY_BATCH: Final = 50  # messages whose octets are read between two looks at their flags
SLICE: Final = 128 * 1024  # octets of a body sent before the client must take some
NARROW_SLICE: Final = 32 * 1024  # the same where many take nothing
GATHER: Final = 64 * 1024  # octets of small answers gathered into one write
WHOLE_AT_A_TIME: Final = 8  # small messages, before others may have their turn

FACTS: Final[Mapping[FetchItem, Callable[[Message], bytes] | None]] = {  # None: a session's own
    Attribute.UID: lambda message: b"UID %d" % message.uid,
    Attribute.FLAGS: None,
    Attribute.INTERNALDATE: lambda message: (
        b"INTERNALDATE " + format_date_time(message.internal_date)
    ),
    Attribute.RFC822_SIZE: lambda message: b"RFC822.SIZE %d" % message.rfc822_size,
    Attribute.MODSEQ: lambda message: b"MODSEQ (%d)" % message.modseq,
    Attribute.SAVEDATE: lambda message: format_save_date_piece(message.save_date),
    Attribute.EMAILID: lambda message: format_id_piece(Attribute.EMAILID, message.email_id),
    Attribute.THREADID: lambda message: format_id_piece(Attribute.THREADID, message.thread_id),
}
WHATS: Final[
    Mapping[FetchItem, tuple[bytes, int]]
] = {  # how it is written, and which value: number, UID, flags, mod-sequence
    Attribute.UID: (b"UID %d", 1),
    Attribute.FLAGS: (b"FLAGS %s", 2),
    Attribute.MODSEQ: (b"MODSEQ (%d)", 3),
}
FROM_STRUCTURE: Final = frozenset({Attribute.ENVELOPE, Attribute.BODY, Attribute.BODYSTRUCTURE})
REMEMBERED_OCTETS: Final = 300  # of a command: what it asks for is asked again and again
MOST_REMEMBERED: Final = 256


def run_fetch(dialogue: BackendImap, command: Command) -> Running:
    """FETCH (RFC 3501 §6.4.5)."""
    return _fetch(dialogue, command, by_uid=False)


def run_uid_fetch(dialogue: BackendImap, command: Command) -> Running:
    """UID FETCH (RFC 3501 §6.4.8, VANISHED of RFC 7162)."""
    return _fetch(dialogue, command, by_uid=True)


async def _fetch(dialogue: BackendImap, command: Command, by_uid: bool) -> None:
    implies_uid = not dialogue.manner.uid_only
    request = await arguments(command, parse_fetch, by_uid, implies_uid=implies_uid)
    rights = dialogue.need_rights("r")
    if request.vanished and not dialogue.manner.qresync:
        raise BadSyntax("VANISHED needs QRESYNC to be enabled")
    uids = await uids_of(dialogue, request.sequence, by_uid)
    is_short = len(command.octets) <= REMEMBERED_OCTETS
    fetch = _Fetch(dialogue, request, remembered if is_short else wanted_by)
    if fetch.wanted.sets_seen and "s" in rights and not dialogue.now.read_only:
        fetch.marks = True
    await fetch.run(command, uids, by_uid)


async def tell_items(dialogue: BackendImap, wanted: Mapping[Uid, Sequence[FetchItem]]) -> None:
    """FETCH responses for new messages, as NOTIFY and UPDATE asked for them; each item once."""
    manner = dialogue.manner
    for items, uids in _by_items(wanted):
        if manner.condstore:  # RFC 7162 §3.2.4
            items = (*items, *(() if manner.uid_only else (Attribute.UID,)), Attribute.MODSEQ)
        fetch = _Fetch(dialogue, FetchRequest(EVERYTHING, tuple(dict.fromkeys(items))), wanted_by)
        if fetch.wanted.sets_seen and "s" in dialogue.need_rights() and not dialogue.now.read_only:
            fetch.marks = True
        await fetch.tell(uids)


def _by_items(
    wanted: Mapping[Uid, Sequence[FetchItem]],
) -> Iterator[tuple[tuple[FetchItem, ...], list[Uid]]]:
    """Messages of which the same is wanted, together; in UID order."""
    for items, pairs in groupby(sorted(wanted.items()), key=lambda pair: tuple(pair[1])):
        yield items, [uid for uid, _ in pairs]


def _name_of_whole(items: Sequence[FetchItem]) -> bytes:
    """How the whole message is called in the answer, where nothing else is asked of its octets: what mail programs fetch
    and what is fetched most. Else empty."""
    asked = [item for item in items if item not in FACTS]
    item = asked[0] if len(asked) == 1 else None
    if not isinstance(item, BodyItem):
        return b""
    is_whole = item.section == WHOLE_MESSAGE and item.partial is None
    return item_name(item) if is_whole and item.form in (Form.BODY, Form.RFC822) else b""


async def send_in_slices(dialogue: BackendImap, octets: memoryview) -> None:
    """Within a response (`is_inside`): a client may take large ones as slowly as it likes. They are not copied: what it has
    not taken yet stays in the file that is mapped."""
    connection = dialogue.connection
    at = mapped_from = 0
    while at < len(octets):
        end = at + (NARROW_SLICE if connection.is_narrow else SLICE)
        piece = octets[at:end]
        if len(piece) >= GATHER:
            connection.write(piece)
        else:
            dialogue.send(bytes(piece))  # with what comes behind it
        at = end
        if connection.writing_paused or at - mapped_from >= MAPPED_OCTETS:
            let_go(octets)
            mapped_from = at
        await dialogue.flush()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list of items comes to, whoever asks for it."""

    makers: Sequence[Callable[[Message], bytes] | None]
    sets_seen: bool
    needs_octets: bool
    needs_message: bool
    needs_structure: bool
    whole: bytes  # see `_name_of_whole`
    # of who asks for these alone: how a line is written, and which values go into it; else nothing
    line: bytes
    pick: Callable[[tuple[int, int, bytes, int]], tuple[int | bytes, ...]] | None


def wanted_by(items: tuple[FetchItem, ...]) -> Wanted:
    request = FetchRequest(EVERYTHING, items)
    line, pick = b"", None
    if Attribute.FLAGS in items and WHATS.keys() >= set(items):
        whats = [WHATS[item] for item in items]
        line = b"(" + b" ".join([what for what, _ in whats]) + b")\r\n"
        pick = itemgetter(0, *[which for _, which in whats])
    return Wanted(
        [FACTS[item] for item in items if item in FACTS],
        request.sets_seen,
        request.needs_octets,
        any(isinstance(item, BodyItem | Preview) for item in items),
        not FROM_STRUCTURE.isdisjoint(items),
        _name_of_whole(items),
        line,
        pick,
    )


remembered: Final = functools.lru_cache(maxsize=MOST_REMEMBERED)(wanted_by)


class _Fetch:
    """One FETCH under way."""

    def __init__(
        self,
        dialogue: BackendImap,
        request: FetchRequest,
        wanted_by: Callable[[tuple[FetchItem, ...]], Wanted],
    ) -> None:
        self._dialogue = dialogue
        self._view = dialogue.now
        self._request = request
        self.marks = False  # messages become \Seen
        self._out: list[bytes] = []
        self._out_octets = 0
        self._is_inside = False  # what is put ends within a response
        self._missed = 0
        self._by_uid = False
        items = dict.fromkeys(request.items)
        tells_uid = dialogue.manner.qresync and not dialogue.manner.uid_only
        if tells_uid and Attribute.FLAGS in items:
            items.setdefault(Attribute.UID)
        if dialogue.manner.condstore and Attribute.FLAGS in items:
            items.setdefault(Attribute.MODSEQ)
        if Attribute.MODSEQ in items:
            dialogue.enable_condstore()
        self._items: tuple[FetchItem, ...] = tuple(items)
        self.wanted = wanted_by(self._items)
        self._numbers: Numbers | None = None  # before the flags were read
        self._lines: bytes | None = None
        self._told: tuple[int, int] = 0, 0  # of how many messages, up to which UID, they are
        # of some; the others are told
        self._damage: Refusal | UpstreamFailure | None = None

    async def run(self, command: Command, uids: Sequence[Uid], by_uid: bool) -> None:
        request = self._request
        self._by_uid = by_uid
        if request.partial is not None:
            uids = window(uids, request.partial)
        if request.vanished and request.changed_since is not None:
            view = self._view
            ranges = await ranges_of(request.sequence, view.uids[-1] if view.uids else 0)
            changes = await view.mailbox.changes(request.changed_since)
            await tell_vanished(self._dialogue, changes, ranges)
        await self.tell(uids)
        if self._damage is not None:
            raise self._damage
        if uids and self._missed == len(uids):  # RFC 2180 §4.1.2
            raise Refusal(Code.EXPUNGE_ISSUED, "None of these messages exists any more")
        is_gone = False
        if not by_uid:  # what others have expunged, told or not (RFC 5530)
            if self._view.is_dirty:
                await self._view.poll()
            is_gone = not self._view.gone.isdisjoint(uids)
        code = b"EXPUNGEISSUED" if self._missed or is_gone else b""
        await self._dialogue.finish(command, code=code, removals=by_uid)
        if self._lines is not None and self._dialogue.view is self._view:
            self._keep(command, self._lines)

    def _keep(self, command: Command, lines: bytes) -> None:
        """The answer, for who asks the same, where it tells what there is now and was before it was made."""
        dialogue, view, keywords = self._dialogue, self._view, self._dialogue.forms.keywords
        numbers, key = self._numbers, plain(command, FETCH)
        is_all = numbers is not None and numbers[2] == view.modseq and numbers[4] == len(view.uids)
        if not is_all or view.has_pending or len(keywords) >= MOST_KEYWORDS:
            return
        if not view.uids or self._told != (len(view.uids), view.uids[-1]):
            return  # some have gone since, or come, as this client has just been told
        if len(view.recent) > MANY:
            return
        if key is not None and view.uids:
            seen = len(view.uids), view.uids[-1], frozenset(keywords), frozenset(view.recent)
            kept = Flags(view.modseq, *seen, lines)
            manner = dialogue.manner, dialogue.forms
            answers = dialogue.backend.answers.flags
            answers.keep(flags_key(view.mailbox, dialogue.user, *manner, key), kept)

    async def tell(self, uids: Sequence[Uid]) -> None:
        """Send the responses."""
        size = BODY_BATCH if self.wanted.needs_octets else 1000
        try:
            for batch in batches(uids, size):
                await self._batch(batch)
            self._send()
        finally:
            if self._dialogue.is_inside:  # a fault of ours: no reply would be understood
                self._dialogue.connection.abort()

    async def _batch(self, uids: Sequence[Uid]) -> None:
        mailbox, wanted = self._view.mailbox, self.wanted
        is_of_flags = wanted.pick is not None and self._request.changed_since is None
        if is_of_flags and (telling := TELLS_FLAGS.of(mailbox)) is not None:
            tell = self._view.tell_numbers if len(uids) == len(self._view.uids) else None
            self._numbers = tell() if tell is not None else None
            await self._tell_flags(uids, await self._view.flagged(telling, uids))
            return
        if self._request.vanished:  # they are told as gone
            messages = await mailbox.messages(uids)
        else:
            messages = await self._view.messages(uids)
        if not self._by_uid:
            self._missed += len(uids) - len(messages)
        if Attribute.RFC822_SIZE in self._items and any(row.told_size < 0 for row in messages):
            messages = [await sized(mailbox, message) for message in messages]
        since = self._request.changed_since
        if since is not None:
            messages = [message for message in messages if message.modseq > since]
        marked: dict[Uid, Message] = {}
        if self.marks:
            unseen = [message.uid for message in messages if SEEN not in message.flags]
            if unseen:
                stored = await self._view.mailbox.change_flags(
                    unseen, FlagChange.ADD, frozenset({SEEN})
                )
                self._view.mark_reported(stored.messages)
                marked = {message.uid: message for message in stored.messages}
        if not wanted.needs_octets:
            for some in portions(messages):
                self._tell_facts(some)
                await self._flush()
            return
        summaries: Mapping[Uid, bytes] = {}
        if wanted.needs_structure and (summing := TELLS_SUMMARIES.of(mailbox)) is not None:
            summaries = await summing.summaries(uids)
        for number, message in enumerate(messages):
            seq = self._view.seq_of(message.uid)
            if seq is None:
                continue
            now = marked.get(message.uid)
            try:
                octets = await small_octets(mailbox, message) if wanted.whole else None
            except Refusal:  # `_tell` meets it again
                octets = None
            if octets is None:
                reader = Reader(mailbox, message, summaries.get(message.uid))
                await self._tell(reader, seq, now or message, flags_too=now is not None)
                continue
            self._put_whole(octets, seq, now or message, flags_too=now is not None)
            if self._out_octets >= GATHER // 2 or not number % WHOLE_AT_A_TIME:
                await self._flush()

    # --- what the store knows

    async def _tell_flags(self, uids: Sequence[Uid], flagged: Sequence[Flagged]) -> None:
        """The same as `_tell_facts`, for the one question that is asked of whole mailboxes."""
        if not self._by_uid:
            self._missed += len(uids) - len(flagged)
        forms, rows = self._dialogue.forms, iter(flagged)
        text, is_done = self._flag_lines(rows, forms, self._view.uids)
        is_all = is_done and len(uids) == len(flagged) == len(self._view.uids)
        self._lines = text if is_all else None  # at once
        self._told = len(uids), uids[-1] if uids else 0
        self._put(forms.fresh_words())
        self._put(text)
        while not is_done:
            await self._flush()
            text, is_done = self._flag_lines(rows, forms, self._view.uids)
            self._put(forms.fresh_words())
            self._put(text)
        self._view.mark_reported(flagged)
        await self._flush()

    def _flag_lines(
        self, flagged: Iterator[Flagged], forms: FlagForms, known: "array[int]"
    ) -> tuple[bytes, bool]:
        """One loop that calls nothing of ours for a message whose flags have been told before; and whether that are all:
        sets of many keywords are written anew for each message."""
        recent, uid_only = self._view.recent, self._dialogue.manner.uid_only
        formed, formed_recent = forms.formed, forms.formed_recent
        wanted = self.wanted
        line = (b"* %d UIDFETCH " if uid_only else b"* %d FETCH ") + wanted.line
        pick = wanted.pick
        assert pick is not None
        exists, at, long = len(known), 0, 0
        lines = []
        for uid, flags, modseq in flagged:
            if at >= exists or known[at] != uid:
                at = bisect_left(known, uid, at)
                if at >= exists or known[at] != uid:
                    continue
            at += 1
            text = (formed_recent if uid in recent else formed).get(flags)
            if text is None:
                text = forms.form(flags, uid in recent)
                long += len(text) > KEPT_FORM_OCTETS
            lines.append(line % pick((uid if uid_only else at, uid, text, modseq)))
            if long >= LONG_FORMS:
                return b"".join(lines), False
        return b"".join(lines), True

    def _tell_facts(self, messages: Sequence[Message]) -> None:
        seq_of, head = self._view.seq_of, self._dialogue.manner.fetch_head
        lines = [
            b"%s%s)\r\n" % (head(seq, message.uid), b" ".join(self._facts(message, False)))
            for message in messages
            if (seq := seq_of(message.uid)) is not None
        ]
        self._put(self._dialogue.forms.fresh_words())
        self._put(b"".join(lines))
        if Attribute.FLAGS in self._items:
            self._view.mark_reported(messages)

    def _facts(self, message: Message, flags_too: bool) -> list[bytes]:
        """The pieces that need no octets of the message."""
        pieces: list[bytes] = []
        for make in self.wanted.makers:
            if make is not None:
                pieces.append(make(message))
            else:
                pieces.append(self._flags(message))
                flags_too = False
        if flags_too:
            pieces.append(self._flags(message))
            manner = self._dialogue.manner
            if manner.condstore and Attribute.MODSEQ not in self._items:
                pieces.append(b"MODSEQ (%d)" % message.modseq)
            if manner.condstore and not manner.uid_only and Attribute.UID not in self._items:
                pieces.insert(0, b"UID %d" % message.uid)  # RFC 7162 §3.2.4
        return pieces

    def _flags(self, message: Message) -> bytes:
        is_recent = message.uid in self._view.recent
        return b"FLAGS " + self._dialogue.forms.form(message.flags, is_recent)

    # --- what only its octets tell

    def _put_whole(self, octets: bytes, seq: SeqNum, message: Message, flags_too: bool) -> None:
        """As `_tell`, of a message that is asked for as a whole and is small."""
        head = self._dialogue.manner.fetch_head(seq, message.uid)
        facts = b"".join([fact + b" " for fact in self._facts(message, flags_too)])
        fresh = self._dialogue.forms.fresh_words()
        self._put(
            b"%s%s%s%s {%d}\r\n%s)\r\n"
            % (fresh, head, facts, self.wanted.whole, len(octets), octets)
        )

    async def _tell(self, reader: Reader, seq: SeqNum, message: Message, flags_too: bool) -> None:
        head = self._dialogue.manner.fetch_head(seq, message.uid)
        begun = False
        try:
            if self.wanted.needs_message:  # before anything of the answer is sent: it may be gone
                size = len(await reader.octets())
                if size != message.rfc822_size:
                    message = replace(message, told_size=size)
            facts = self._facts(message, flags_too)
            self._put(self._dialogue.forms.fresh_words())
            for item in self._items:
                make = self._later_piece if begun else self._octet_piece
                piece = await make(reader, item)
                if piece is None:
                    continue
                if not begun:
                    begun = self._is_inside = True
                    self._put(head + b"".join(fact + b" " for fact in facts))
                else:
                    self._put(b" ")
                begin, body = piece
                self._put(begin)
                await self._put_body(body)
                await self._dialogue.flush()
        except DamagedMessageError as damage:
            if begun:
                raise
            self._damage = damage
            return
        except Refusal as refusal:
            if refusal.code is not Code.EXPUNGE_ISSUED or begun:
                raise
            self._missed += not self._by_uid
            return
        finally:
            reader.close()
        self._is_inside = False
        if begun:
            self._put(b")\r\n")
        else:
            self._put(b"%s%s)\r\n" % (head, b" ".join(facts)))
        await self._flush()

    async def _later_piece(
        self, reader: Reader, item: FetchItem
    ) -> tuple[bytes, memoryview | bytes] | None:
        """Behind the first one, which the client may have: octets that cannot be told are NIL, anything else is left out
        (a client would keep an ENVELOPE without fields), and the end says why."""
        try:
            return await self._octet_piece(reader, item)
        except (Refusal, UpstreamFailure) as failure:
            self._damage = failure
            return (format_body(item, None), b"") if isinstance(item, BodyItem) else None

    async def _octet_piece(
        self, reader: Reader, item: FetchItem
    ) -> tuple[bytes, memoryview | bytes] | None:
        match item:
            case BodyItem():
                octets = await reader.section(item)
                if octets is None or item.form is Form.BINARY_SIZE:
                    return format_body(item, octets), b""
                octets = cut(octets, item.partial)
                binary = item.form is Form.BINARY and has_nul(memoryview(octets))
                return format_body_head(item, len(octets), has_nul=binary), octets
            case Attribute.ENVELOPE:
                return await reader.envelope(), b""
            case Attribute.BODY | Attribute.BODYSTRUCTURE:
                return await reader.structure(item is Attribute.BODYSTRUCTURE), b""
            case Preview():
                return format_preview_piece(await reader.preview(item.lazy)), b""
            case _:
                return None

    # --- sending

    def _put(self, octets: bytes) -> None:
        if not octets:
            return
        self._out.append(octets)
        self._out_octets += len(octets)
        if self._out_octets >= GATHER:
            self._send()

    def _send(self) -> None:
        if self._out:
            if self._dialogue.is_inside is not self._is_inside:
                self._dialogue.is_inside = self._is_inside
            self._dialogue.send(b"".join(self._out))
            self._out.clear()
            self._out_octets = 0

    async def _put_body(self, octets: memoryview | bytes) -> None:
        if len(octets) < GATHER:
            self._put(bytes(octets))
            return
        self._send()
        await send_in_slices(self._dialogue, memoryview(octets))

    async def _flush(self) -> None:
        if self._out_octets >= GATHER // 2:
            self._send()
        await self._dialogue.flush()
