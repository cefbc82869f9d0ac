"""A Cyrus backend as the target of a move: the way back. What `Outgoing` says is put into Cyrus' replication protocol.

It stands in the place of a `Peer`: batches are kept until they are asked about, mailboxes are told of when they are
complete. What Cyrus has confirmed it keeps; it shows nothing before MUPDATEPUSH.

A command may have all of a mailbox in it: it is written piece by piece, and what is to be reckoned of much is, in a thread.
"""

import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from murder.api.turns import behind
from murder.errors import Code, Misuse, Refusal
from murder.model.carried import Portrait
from murder.model.message import Message, ModSeq
from murder.model.name import MailboxName, display, is_inbox, owner_of
from murder.model.pieces import let_go
from murder.model.seqset import compress
from murder.net.octets import OctetChannel
from murder.roles.backend.moves.batches import digest
from murder.roles.backend.moves.compare import digest_of
from murder.roles.backend.moves.cyrus_values import (
    EXPUNGED,
    SAVE_DATE,
    Told,
    called,
    flags_of,
    mapping_of,
    number_of,
    text_of,
    values_of,
)
from murder.roles.backend.records.annotations import note_keys_of
from murder.wire.dlist import MessageOctets, Value, announced_by, format_value, parse_values
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.carry_answers import Held, Known, Stored, Sum
from murder.wire.nodes.carry_words import (
    Abort,
    Act,
    Begin,
    Commit,
    Complete,
    Fate,
    Hold,
    Kept,
    Prepare,
    Rows,
)

MAX_LINE: Final = 512 * 1024 * 1024
# of a command: made and written at once, then others have their turn
PIECE_OCTETS: Final = 16 * 1024
DELETED: Final = "\\Deleted"
SEEN: Final = "\\Seen"
TYPES: Final = {b"#sieve": "f", b"#calendars": "c", b"#addressbooks": "a", b"#drive": "b"}
SCRIPTS: Final = {"MBOXTYPE": TYPES[b"#sieve"]}
MAX_SCRIPT_HEADER: Final = 8192
_SCRIPT_FILE: Final = re.compile(rb'(?i)\bfilename="?[^\s";]{1,200}\.sieve"?')
_NON_IMAP: Final = re.compile(rb"[.](#[a-z]+)(?=[.]|\Z)")


@dataclass(slots=True)
class _Batch:
    """Rows on their way, with the octets of those that bring some."""

    name: MailboxName
    rows: Sequence[tuple[Message, bool]]
    octets: list[bytes | memoryview] = field(default_factory=list)


@dataclass(slots=True)
class _Box:
    """A mailbox as far as it has been told of."""

    mailbox_id: str
    told: dict[str, Any]
    digests: dict[int, str] = field(default_factory=dict)
    records: dict[int, bytes] = field(default_factory=dict)  # to be told of, by UID
    seen: Mapping[str, Sequence[int]] = field(default_factory=dict)
    since: int | None = None  # the mod-sequence up to which it has been told of


class CyrusTarget:
    """See the module. `names` are those of the move, as far as they are known; `acl_of`: their access lists."""

    def __init__(
        self,
        channel: OctetChannel,
        server: str,
        close: Callable[[], None],
        acl_of: Callable[[MailboxName], bytes],
    ) -> None:
        self.server = server
        self.close = close
        self.names: Sequence[MailboxName] = ()
        self._acl_of = acl_of
        self._wire = channel
        self._count = 0
        self._boxes: dict[MailboxName, _Box] = {}
        self._named: dict[str, MailboxName] = {}  # by mailbox id
        self._batches: deque[_Batch] = deque()
        self._partition = "default"

    # --- the wire

    async def _say(self, command: bytes, more: Iterable[bytes | memoryview] = ()) -> list[bytes]:
        """And `more` of the command. Raises Refusal where it says NO; the untagged lines."""
        self._count += 1
        tag = b"M%d" % self._count
        pieces: list[bytes | memoryview] = [tag, b" ", command]
        held = len(command)
        for piece in more:
            pieces.append(piece)
            held += len(piece)
            if held >= PIECE_OCTETS:
                await self._wire.send(b"".join(pieces))
                pieces, held = [], 0
        await self._wire.send(b"".join([*pieces, b"\r\n"]))
        lines: list[bytes] = []
        while True:
            line = await self._wire.line(MAX_LINE)
            while (announced := announced_by(line)) is not None:
                literal = await self._wire.exactly(announced[1].length)
                line = announced[0] + b'"' + literal.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
                line += b'"' + await self._wire.line(MAX_LINE)
            if line.startswith(tag + b" "):
                break
            lines.append(line)
        if not line.startswith(tag + b" OK"):
            text = line.removeprefix(tag + b" ").decode("utf-8", "replace")
            raise Refusal(Code.CANNOT, f"{self.server}: {text} (to {display(command[:60])})")
        return lines

    # --- batches

    async def send_rows(self, rows: Rows) -> None:
        """Kept until it is asked about."""
        self._batches.append(_Batch(rows.name, rows.rows))

    async def send_kept(self, kept: Kept) -> None:
        """Never: `hold` tells that it takes nothing that was expunged."""
        raise Misuse("A Cyrus takes nothing that was expunged")

    async def send_octets(self, octets: bytes | memoryview) -> None:
        """Those of the next message of the last batch: all at once."""
        self._batches[-1].octets.append(octets)

    async def stored(self) -> Stored:
        """The oldest batch goes over now; its digest, for Cyrus has compared each message's own."""
        batch = self._batches.popleft()
        box = self._boxes[batch.name]
        if _type_of(batch.name) == SCRIPTS:
            for octets in batch.octets:
                _check_script(octets)
        reckoned = await behind(_reckoned, batch, box.digests)
        box.digests |= reckoned.digests
        box.records |= reckoned.records
        if batch.octets:
            await self._say(b"SYNCAPPLY MESSAGE (", self._files(batch, reckoned.digests.values()))
        return Stored(reckoned.digest)

    def _files(self, batch: _Batch, guids: Iterable[str]) -> Iterator[bytes | memoryview]:
        """As a command has them, to its end."""
        between = b""
        for guid, octets in zip(guids, batch.octets, strict=True):
            yield between + format_value(MessageOctets(self._partition, guid, len(octets)))
            for start in range(0, len(octets), PIECE_OCTETS):
                yield octets[start : start + PIECE_OCTETS]
            between = b" "
        yield b")"

    # --- questions

    async def do(self, request: Act) -> None:
        """Raises Refusal, UpstreamFailure."""
        match request:
            case Begin():
                await self._begin(request)
            case Complete(name, portrait):
                await self._complete(name, portrait)
            case Prepare():
                await self._prepare(request)
            case Commit():
                await self._push()
            case Abort():
                await self._remove(self.names)
            case _:
                assert_never(request)

    async def fate(self, request: Fate) -> Known:
        """It knows of no moves. Raises Refusal."""
        raise Refusal(Code.CANNOT, "A Cyrus cannot be asked how a move ended")

    async def _begin(self, request: Begin) -> None:
        root = request.root
        owner = owner_of(root)
        if owner is None or not is_inbox(root):
            raise Refusal(Code.CANNOT, "Only users' mailboxes can move to a Cyrus backend")
        self._partition = request.partition or "default"
        # one before 3.5 knows no mailboxes of scripts, and takes them for mail
        with suppress(Refusal):
            await self._say(b"SYNCAPPLY CAPABILITIES (SIEVE-MAILBOX)")
        lines = await self._say(b"SYNCGET USER " + format_value(owner))
        present = [MailboxName(octets) for octets in map(_name_told, lines) if octets]
        # what an earlier try has left: the master knows us as the user's server
        await self._remove(present)

    async def hold(self, request: Hold) -> Held:
        """Nothing is told before it is complete. What it has been told of under this name, or of this mailbox under another,
        goes first: two names of one mailbox it keeps in one folder, and removes it with the first of them."""
        name, mailbox_id = request.name, request.identity.mailbox_id
        was = self._named.get(mailbox_id, name)
        if was in self._boxes and self._boxes[was].mailbox_id == mailbox_id:
            await self._forget([was])
        await self._forget([name])
        self._named[mailbox_id] = name
        fields = {"MBOXNAME": bytes(name), "ACL": self._acl_of(name)}
        self._boxes[name] = _Box(mailbox_id, fields)
        return Held(ModSeq(0), ())

    async def _complete(self, name: MailboxName, portrait: Portrait) -> None:
        box = self._boxes[name]
        gone = [uid for _, uid in portrait.expunged if uid in box.digests]
        box.told.update(
            UNIQUEID=portrait.identity.mailbox_id.encode(),
            UIDVALIDITY=int(portrait.identity.uid_validity),
            LAST_UID=int(portrait.uid_next) - 1,
            HIGHESTMODSEQ=int(portrait.highest_modseq),
        )
        box.seen = {reader: list(uids) for reader, uids in portrait.seen.items()}
        for uid in gone:
            box.records.pop(uid, None)
        await self._tell(box)
        if gone:
            uids: list[Value] = [b"%d" % uid for uid in gone]
            fields: Told = {"MBOXNAME": bytes(name), "UNIQUEID": box.told["UNIQUEID"], "UID": uids}
            await self._say(b"SYNCAPPLY EXPUNGE " + format_value(fields))
            for uid in gone:
                del box.digests[uid]

    async def _tell(self, box: _Box) -> None:
        """All that is known of it, with the records that have not been told of."""
        fields = {
            **dict.fromkeys(("SYNC_CRC", "SYNC_CRC_ANNOT", "RECENTUID", "RECENTTIME"), 0),
            **dict.fromkeys(("LAST_APPENDDATE", "POP3_LAST_LOGIN", "POP3_SHOW_AFTER"), 0),
            **box.told,
            "PARTITION": self._partition,
            **_type_of(box.told["MBOXNAME"]),
            "OPTIONS": "P",
            "CREATEDMODSEQ": 1,
            "FOLDERMODSEQ": box.told["HIGHESTMODSEQ"],
        }
        if box.since is not None:  # the records are those that have changed since
            fields.update(SINCE_MODSEQ=box.since, SINCE_CRC=0, SINCE_CRC_ANNOT=0)
        records, box.records, box.since = box.records, {}, box.told["HIGHESTMODSEQ"]
        known = format_value(fields).removesuffix(b")")
        await self._say(b"SYNCAPPLY LOCAL_MAILBOX " + known, _listed(records))

    async def sum(self, name: MailboxName) -> Sum:
        """Of all that Cyrus says it has."""
        lines = await self._say(b"SYNCGET FULLMAILBOX " + format_value(bytes(name)))
        return await behind(_sum_in, lines)

    async def _prepare(self, request: Prepare) -> None:
        names = [name for name, _ in request.rows]
        await self._forget([name for name in self._boxes if name not in names])
        for name, raw_acl in request.rows:
            box = self._boxes[name]
            if box.told["ACL"] != raw_acl:
                # Cyrus would tell the master, which knows us as who has it
                raise Refusal(Code.IN_USE, f"The access list of {display(name)} has just changed")
            entries = _note(request, "a/", name)
            if entries:
                box.told["ANNOTATIONS"] = _annotations(entries)
                await self._tell(box)
        for name in names:
            limits = _note(request, "q/", name)
            if limits:
                fields = {
                    "ROOT": bytes(name),
                    "LIMIT": limits.get("STORAGE", -1),
                    **limits,
                    "MODSEQ": 1,
                }
                await self._say(b"SYNCAPPLY QUOTA " + format_value(fields))
            await self._tell_seen(self._boxes[name])
        owner = owner_of(names[0]) or ""
        for name in request.subscriptions:
            fields = {"USERID": owner, "MBOXNAME": bytes(name)}
            await self._say(b"SYNCAPPLY SUB " + format_value(fields))
        self.names = names

    async def _tell_seen(self, box: _Box) -> None:
        now = int(time.time())
        for reader, uids in box.seen.items():
            ranges = (f"{low}:{high}" if low != high else str(low) for low, high in compress(uids))
            fields = {
                "USERID": reader,
                "UNIQUEID": box.told["UNIQUEID"],
                "LASTREAD": now,
                "LASTUID": max(uids, default=0),
                "LASTCHANGE": now,
                "SEENUIDS": ",".join(ranges),
            }
            await self._say(b"SYNCAPPLY SEEN " + format_value(fields))

    async def _push(self) -> None:
        """Children first. May be said again."""
        for name in sorted(self.names, key=len, reverse=True):
            forms = sorted(called(name) - {bytes(name)}) or [bytes(name)]
            try:
                await self._push_as(forms[-1])  # with `/`
            except Refusal:
                await self._push_as(bytes(name))
        await self._say(b"SYNCRESTART")

    async def _push_as(self, external: bytes) -> None:
        await self._say(b"MUPDATEPUSH {%d+}\r\n%s" % (len(external), external))

    async def _forget(self, names: Sequence[MailboxName]) -> None:
        """As `_remove`, where it has been told of them at all."""
        boxes = [(name, box) for name in names if (box := self._boxes.pop(name, None)) is not None]
        await self._remove([name for name, box in boxes if box.since is not None])

    async def _remove(self, names: Sequence[MailboxName]) -> None:
        for name in sorted(names, key=len, reverse=True):
            await self._say(b"SYNCAPPLY LOCAL_UNMAILBOX " + format_value(bytes(name)))
            self._boxes.pop(name, None)


def _type_of(name: bytes) -> dict[str, str]:
    """What Cyrus takes the mailbox for, where it is not mail."""
    match = _NON_IMAP.search(name)
    kind = TYPES.get(match[1]) if match is not None else None
    return {"MBOXTYPE": kind} if kind is not None else {}


def _check_script(octets: bytes | memoryview) -> None:
    """A Cyrus (3.6.1) dies of a script whose file's name has no `.sieve`, as older versions of ours have written it. Raises
    Refusal."""
    header = bytes(octets[:MAX_SCRIPT_HEADER]).partition(b"\r\n\r\n")[0]
    if _SCRIPT_FILE.search(header) is None:
        subject = re.search(rb"(?i)^Subject: *(.*?)\r?$", header, re.MULTILINE)
        name = display(subject[1][:100]) if subject is not None else "a script"
        problem = "is stored in a form that no Cyrus takes: put this script once more, then move"
        raise Refusal(Code.CANNOT, f"{name} {problem} (murder ctl sieve get, put)")


@dataclass(frozen=True, slots=True)
class _Reckoned:
    """Of a batch: its digest as both ends have it; by UID, Cyrus' of the octets that it brings, and its records."""

    digest: str
    digests: dict[int, str]
    records: dict[int, bytes]


def _reckoned(batch: _Batch, known: Mapping[int, str]) -> _Reckoned:
    """With the digests that are `known` of what the batch brings no octets of. In a thread."""
    pending = iter(batch.octets)
    sent: list[tuple[Message, memoryview | None]] = []
    digests: dict[int, str] = {}
    records: dict[int, bytes] = {}
    for message, has_octets in batch.rows:
        octets = memoryview(next(pending)) if has_octets else None
        if octets is not None:
            digests[message.uid] = hashlib.sha1(octets, usedforsecurity=False).hexdigest()
        guid = digests.get(message.uid) or known[message.uid]
        records[message.uid] = format_value(_record(message, guid))
        sent.append((message, octets))
    return _Reckoned(digest(sent), digests, records)


def _listed(records: dict[int, bytes]) -> Iterator[bytes]:
    """As the last of what is told of a mailbox, to its end. In the order of UIDs: a try that came no further may have left
    some, and others have changed since."""
    yield b" RECORD ("
    between = b""
    for uid in sorted(records):
        yield between + records.pop(uid)
        between = b" "
    yield b"))"


def _record(message: Message, guid: str) -> Told:
    saved = int((message.save_date or message.internal_date).timestamp())
    fields: dict[str, Any] = {
        "UID": int(message.uid),
        "MODSEQ": int(message.modseq),
        "LAST_UPDATED": int(time.time()),
        "FLAGS": sorted(message.flags),
        "INTERNALDATE": int(message.internal_date.timestamp()),
        "SIZE": message.size,
        "GUID": guid,
        "ANNOTATIONS": [{"ENTRY": SAVE_DATE, "USERID": "", "MODSEQ": 0, "VALUE": str(saved)}],
    }
    return fields


def _name_told(line: bytes) -> bytes:
    """The name in `* MAILBOX %(…)`."""
    if not line.startswith(b"* MAILBOX "):
        return b""
    fields = mapping_of(parse_values([line.removeprefix(b"* MAILBOX ")])[0])
    return text_of(fields, "MBOXNAME").encode("utf-8", "surrogateescape")


def _note(prepare: Prepare, kind: str, name: MailboxName) -> dict[str, Any]:
    """One of the notes beside a mailbox, which is JSON of our own."""
    key = kind + format_name(name)
    octets = prepare.notes.get(key)
    assert octets is None or key in note_keys_of([name])
    fields: dict[str, Any] = json.loads(octets) if octets else {}
    return fields


def _annotations(entries: Mapping[str, Mapping[str, str]]) -> list[Any]:
    """As Cyrus calls them."""
    return [
        {
            "ENTRY": "/" + entry.split("/", 2)[2],
            "USERID": reader,
            "MODSEQ": 0,
            "VALUE": value.encode("latin-1"),
        }
        for reader, values in entries.items()
        for entry, value in values.items()
    ]


def _sum_in(lines: Sequence[bytes]) -> Sum:
    """Of what Cyrus says of a mailbox and of each message in it. In a thread: of much mail it takes seconds."""
    values = parse_values([lines[0].partition(b" MAILBOX ")[2]]) if lines else []
    fields = mapping_of(values[0] if values else None)
    records = values_of(fields.get("RECORD"))
    kept = [
        (number_of(record, "UID"), flags_of(record), number_of(record, "SIZE"))
        for record in map(mapping_of, records)
        if EXPUNGED not in flags_of(record)
    ]
    let_go(records)
    uids = sorted(uid for uid, _, _ in kept)
    return Sum(
        messages=len(kept),
        unseen=sum(SEEN not in flags for _, flags, _ in kept),
        deleted=sum(DELETED in flags for _, flags, _ in kept),
        octets=sum(size for _, _, size in kept),
        uid_next=number_of(fields, "LAST_UID") + 1,
        uid_validity=number_of(fields, "UIDVALIDITY"),
        highest_modseq=number_of(fields, "HIGHESTMODSEQ"),
        uids=digest_of(uids),
    )
