"""Both ends of a move compared completely, while it runs and as long as the old copy is kept: `XFERS VERIFY`.

The source drives it: its own store and the target's answers (`tell`) are read side by side (`compare`). Rights,
metadata, quota and subscriptions have left the source's list with the mailboxes; what it handed over is in the journal.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from murder.api import CarriesMailboxes
from murder.backend.moves.compare import (
    Compared,
    Facts,
    Fetch,
    Row,
    Sides,
    Verdict,
    compare_facts,
    compare_rows,
    numbers_of,
)
from murder.backend.moves.journal import Journal, Move, Side, State
from murder.backend.moves.peer import Peer
from murder.backend.records.annotations import notes_with, without_entry
from murder.backend.shared import Backend
from murder.errors import Code, Refusal
from murder.model.annotation import LASTPOP
from murder.model.message import ModSeq, Uid
from murder.model.name import (
    MailboxName,
    deleted_name,
    display,
    is_inbox,
    is_of_tree,
    owner_of,
)
from murder.model.seqset import compress
from murder.wire.carry import (
    Words,
    format_message,
    format_name,
    parse_message,
    parse_name,
    parse_uid_ranges,
)
from murder.wire.carry_words import Compare

ROWS: Final = 200  # of one answer
HASHED_OCTETS: Final = 32 * 1024 * 1024  # of one answer, unless a single message has more
TRIES: Final = 3  # of a mailbox that changes while it is compared
AFTER: Final = frozenset({State.HANDING, State.DONE})  # the target has the newer copy
DURING: Final = frozenset({State.COPYING, State.STOPPED, State.FAILED})


# --- what one end tells of its store


async def facts_of(backend: Backend, name: MailboxName, upto: int) -> dict[str, Any]:
    """See `compare.Facts`; `upto` a mod-sequence, -1: the mailbox's own. Raises Refusal."""
    store = backend.store
    assert isinstance(store, CarriesMailboxes)
    mailbox = await store.open(name, owner_of(name) or "")
    try:
        status = await mailbox.status()
    finally:
        mailbox.close()
    portrait = await store.portrait(name, ModSeq(0))
    upto = status.highest_modseq if upto < 0 else upto
    before = hashlib.sha256()
    for modseq, uid in sorted(portrait.expunged):
        if modseq <= upto:
            before.update(b"%d %d\n" % (modseq, uid))
    gone = sorted(uid for modseq, uid in portrait.expunged if modseq > upto)
    return {
        "numbers": numbers_of(status),
        "mailbox_id": portrait.identity.mailbox_id,
        "gone": [list(pair) for pair in compress(gone)],
        "gone_before": before.hexdigest(),
        "seen": {
            reader: hashlib.sha256(repr(sorted(map(int, uids))).encode()).hexdigest()
            for reader, uids in portrait.seen.items()
            if uids
        },
    }


def parse_facts(words: Words) -> Facts:
    """Raises KeyError, TypeError, ValueError, BadSyntax."""
    numbers = {str(key): int(value) for key, value in words["numbers"].items()}
    seen = {str(key): str(value) for key, value in words["seen"].items()}
    gone = parse_uid_ranges(words["gone"])
    return Facts(numbers, str(words["mailbox_id"]), gone, str(words["gone_before"]), seen)


async def rows_of(backend: Backend, name: MailboxName, after: Uid) -> list[Row]:
    """The next messages, their octets read and digested. Raises Refusal."""
    store = backend.store
    assert isinstance(store, CarriesMailboxes)
    found: list[Row] = []
    read = 0
    mailbox = await store.open(name, owner_of(name) or "")
    try:
        for message in await store.rows(name, ModSeq(0), after, ROWS):
            digest, problem = "", ""
            try:
                octets = await mailbox.octets(message.uid)
                digest = (await asyncio.to_thread(hashlib.sha256, octets)).hexdigest()
            except Refusal as refusal:
                if refusal.code is Code.EXPUNGE_ISSUED and not await mailbox.messages(
                    [message.uid]
                ):
                    continue  # expunged meanwhile
                problem = refusal.text
            except (OSError, ValueError) as error:
                problem = str(error)
            found.append(Row(message, digest, problem))
            read += message.size
            if read >= HASHED_OCTETS:
                break
    finally:
        mailbox.close()
    return found


async def _tree(backend: Backend, root: MailboxName) -> list[dict[str, Any]]:
    """What the list shows of a tree, and what of it rests since it was deleted."""
    rows = [*backend.mailboxes.below(root)]
    if (top := backend.mailboxes.find(root)) is not None:
        rows.append(top)
    prefix = deleted_name(root, 0).removesuffix(b".0")
    for row in backend.mailboxes.list.walk(prefix=prefix):
        if is_of_tree(row.name, root):
            rows.append(row)
    told = []
    for row in rows:
        try:
            mailbox = await backend.store.open(row.name, "")
        except Refusal:
            continue
        told.append(
            {
                "name": format_name(row.name),
                "id": mailbox.mailbox_id,
                "acl": format_name(row.raw_acl),
            }
            | {"seq": row.seq}
        )
        mailbox.close()
    return told


async def tell(backend: Backend, move: Move, request: Compare) -> dict[str, Any]:
    """Answer the other end about a move that came from there. Raises Refusal."""
    root, name = request.root, request.name
    if not is_of_tree(name, root):
        raise Refusal(Code.CANNOT, f"{display(name)} is no part of {display(root)}")
    match request.what:
        case "tree":
            left = backend.journal.keeps(root)
            return {
                "tree": await _tree(backend, root),
                "notes": told_notes(backend, root),
                "subscriptions": await subscriptions_of(backend, root),
                "shown_seq": move.shown_seq,
                "names": [format_name(one) for one in move.names],
                "left_to": left.server if left is not None and left.side is Side.OUT else "",
            }
        case "facts":
            return await facts_of(backend, name, request.number)
        case "rows":
            rows = await rows_of(backend, name, Uid(max(0, request.number)))
            return {
                "rows": [[*format_message(row.message), row.digest, row.problem] for row in rows]
            }
        case other:
            raise Refusal(Code.CANNOT, f"{other} is unknown here")


def told_notes(backend: Backend, root: MailboxName) -> dict[str, str]:
    names = [root, *(row.name for row in backend.mailboxes.below(root))]
    notes = notes_with(backend.mailboxes.list, names)
    return {key: format_name(octets) for key, octets in _without_secrets(notes).items()}


def _without_secrets(notes: Mapping[str, bytes]) -> dict[str, bytes]:
    """The keys of URLs (RFC 4467) are compared by their digests; when POP3 came last is not compared."""
    told = {}
    for key, octets in notes.items():
        if key.startswith("u/"):
            octets = hashlib.sha256(octets).hexdigest().encode()
        elif key.startswith("a/") and LASTPOP.encode() in octets:
            octets = without_entry(octets, LASTPOP)
        if octets:
            told[key] = octets
    return told


async def changed_since(backend: Backend, handed: Mapping[str, Any]) -> MailboxName | None:
    """A mailbox that is kept, and is not as it left: other software has put mail into its files, say."""
    for text, modseq in handed.get("left_at", {}).items():
        try:
            mailbox = await backend.store.open(parse_name(text), "")
        except Refusal:
            continue  # gone already
        try:
            status = await mailbox.status()
        finally:
            mailbox.close()
        if status.highest_modseq != modseq:
            return parse_name(text)
    return None


async def subscriptions_of(backend: Backend, root: MailboxName) -> list[str]:
    """They move with a user's INBOX."""
    owner = owner_of(root)
    if owner is None or not is_inbox(root):
        return []
    return sorted(format_name(name) for name in await backend.store.subscriptions(owner))


# --- the source, comparing


@dataclass(frozen=True, slots=True)
class _End:
    """A mailbox at one end; `peer` is None for our own."""

    backend: Backend
    move: Move
    name: MailboxName
    peer: Peer | None

    async def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        words = {
            "do": "compare",
            "what": what,
            "id": self.move.id,
            "root": format_name(self.move.root),
        }
        assert self.peer is not None
        return await self.peer.ask(words | {"name": format_name(self.name), **more})

    async def tree(self) -> dict[str, Any]:
        return await self._ask("tree")

    async def facts(self, upto: int) -> Facts:
        if self.peer is None:
            return parse_facts(await facts_of(self.backend, self.name, upto))
        return parse_facts(await self._ask("facts", upto=upto))

    async def rows(self, after: Uid) -> Sequence[Row]:
        if self.peer is None:
            return await rows_of(self.backend, self.name, after)
        told = (await self._ask("rows", after=int(after)))["rows"]
        return [Row(parse_message(row[:-2]), str(row[-2]), str(row[-1])) for row in told]


class Verification:
    """See the module. Raises Refusal where there is nothing to compare, UpstreamFailure."""

    def __init__(self, backend: Backend, journal: Journal, move: Move, peer: Peer) -> None:
        if move.state not in AFTER | DURING:
            raise Refusal(
                Code.CANNOT,
                f"The move {move.id} is {move.state.value}: there are no two copies to compare",
            )
        self._backend = backend
        self._journal = journal
        self._move = move
        self._peer = peer
        self._is_after = move.state in AFTER
        here, there = backend.server_name, move.server
        self._sides = Sides(here, there) if self._is_after else Sides(there, here)

    def _end(self, name: MailboxName, *, there: bool) -> _End:
        return _End(self._backend, self._move, name, self._peer if there else None)

    async def run(self) -> AsyncIterator[Compared]:
        """One after the other; what is of the whole tree comes last, under the root's name."""
        tree = await self._end(self._move.root, there=True).tree()
        if self._is_after:
            if tree["left_to"]:
                raise Refusal(
                    Code.CANNOT,
                    f"{display(self._move.root)} has moved on from {self._move.server} to "
                    f"{tree['left_to']}: verify that move",
                )
            async for found in self._after(tree):
                yield found
        else:
            async for found in self._during(tree):
                yield found

    # --- the move runs: the target's copy is the older one

    async def _during(self, tree: Mapping[str, Any]) -> AsyncIterator[Compared]:
        mailboxes = self._backend.mailboxes
        arrived = {parse_name(text) for text in tree["names"]}
        root = mailboxes.find(self._move.root)
        for row in [*([root] if root is not None else []), *mailboxes.below(self._move.root)]:
            if row.name in arrived:
                yield await self._compare(
                    row.name, self._end(row.name, there=True), self._end(row.name, there=False)
                )
            else:
                found = Compared(row.name)
                found.note(Verdict.CHANGED, "it has yet to go over")
                yield found
        found = Compared(self._move.root)
        found.note(Verdict.SAME, "rights, metadata, quota and subscriptions go over in the end")
        yield found

    # --- the move is over: the source's copy is the older one

    async def _after(self, tree: Mapping[str, Any]) -> AsyncIterator[Compared]:
        there = {str(row["id"]): row for row in tree["tree"]}
        handed = self._journal.handed(self._move)
        acls = {parse_name(name): str(acl) for name, acl in handed["rows"]} if handed else {}
        matched: set[str] = set()
        for name in self._move.names:
            try:
                mailbox = await self._backend.store.open(name, "")
            except Refusal as refusal:
                found = Compared(name)
                found.note(
                    Verdict.DIFFERENT, f"{self._sides.older} keeps it no more: {refusal.text}"
                )
                yield found
                continue
            mailbox_id = mailbox.mailbox_id
            mailbox.close()
            row = there.get(mailbox_id)
            if row is None:
                found = Compared(name)
                text = f"it is not at {self._sides.newer}: deleted there since, or lost"
                found.note(Verdict.DIFFERENT, text)
                yield found
                continue
            matched.add(mailbox_id)
            now = parse_name(row["name"])
            found = await self._compare(
                name, self._end(name, there=False), self._end(now, there=True)
            )
            if now != name:
                found.note(Verdict.CHANGED, f"it is called {display(now)} now")
            self._compare_rights(found, acls.get(name), row, int(tree["shown_seq"]))
            yield found
        whole = Compared(self._move.root)
        for mailbox_id, row in there.items():
            if mailbox_id not in matched:
                whole.note(
                    Verdict.CHANGED, f"{display(parse_name(row['name']))} has been made since"
                )
        self._compare_whole(whole, handed, tree)
        if whole.verdict is not Verdict.SAME or whole.told:
            yield whole

    def _compare_rights(
        self, found: Compared, acl: str | None, row: Mapping[str, Any], shown_seq: int
    ) -> None:
        if acl is None or acl == row["acl"]:
            return
        text = f"rights were {_shown(acl)}, and are {_shown(row['acl'])}"
        is_later = shown_seq and row["seq"] > shown_seq
        found.note(Verdict.CHANGED if is_later else Verdict.DIFFERENT, text)

    def _compare_whole(
        self, found: Compared, handed: Mapping[str, Any] | None, tree: Mapping[str, Any]
    ) -> None:
        """What has no date: a difference may have been made since, and the operator is told both."""
        if handed is None:
            found.note(
                Verdict.SAME,
                "rights, metadata, quota and subscriptions as handed over are not known",
            )
            return
        notes, now = handed["notes"], tree["notes"]
        for key in sorted(notes.keys() | now.keys()):
            if notes.get(key) != now.get(key):
                text = f"{_differing(key, notes.get(key, ''), now.get(key, ''))} (not dated)"
                found.note(Verdict.CHANGED, text)
        before, after = set(handed["subscriptions"]), set(tree["subscriptions"])
        for text in sorted(before ^ after):
            word = "subscribed to" if text in after else "no longer subscribed to"
            found.note(Verdict.CHANGED, f"{word} {text} since (not dated)")

    # --- one mailbox

    async def _compare(self, name: MailboxName, older: _End, newer: _End) -> Compared:
        """Again where it differs and has changed meanwhile."""
        for _ in range(TRIES):
            found = Compared(name)
            try:
                is_steady = await self._compare_once(found, older, newer)
            except Refusal as refusal:
                found.note(Verdict.DIFFERENT, f"it cannot be read: {refusal.text}")
                return found
            if found.verdict is not Verdict.DIFFERENT or is_steady:
                break
        return found

    async def _compare_once(self, found: Compared, older: _End, newer: _End) -> bool:
        """Whether neither side has changed meanwhile."""
        before = await older.facts(-1)
        began = await newer.facts(before.modseq)
        fetch: tuple[Fetch, Fetch] = (older.rows, newer.rows)
        missing, counts = await compare_rows(found, self._sides, before, *fetch)
        ended = await newer.facts(before.modseq)
        compare_facts(found, self._sides, before, ended, missing)
        is_steady = began == ended and before == await older.facts(-1)
        if is_steady:
            sides = (self._sides.older, self._sides.newer)
            for side, facts, count in zip(sides, (before, ended), counts, strict=True):
                if facts.numbers["messages"] != count:
                    told = f"{side} counts {facts.numbers['messages']} messages and has {count}"
                    found.note(Verdict.DIFFERENT, told)
        return is_steady


def _differing(key: str, before: str, after: str) -> str:
    """What of a note is not as it was (see `annotations.NOTE_KEYS`)."""
    kind, _, name = key.partition("/")
    if kind == "u":
        return f"the keys of URLs to {name} are others"
    if kind == "q":
        return f"the quota of {name} was {before or 'none'}, and is {after or 'none'}"
    was, now = (json.loads(one) if one else {} for one in (before, after))
    entries = {
        entry
        for scope in was.keys() | now.keys()
        for entry in was.get(scope, {}).keys() | now.get(scope, {}).keys()
        if was.get(scope, {}).get(entry) != now.get(scope, {}).get(entry)
    }
    return f"metadata of {name} differs: {', '.join(sorted(entries))}"


def _shown(acl: str) -> str:
    return " ".join(acl.split("\t")).strip() or "none"


def format_handed(words: Words, left_at: Mapping[MailboxName, int]) -> bytes:
    """What the source remembers of what it told the target to show, and the mod-sequences of what it keeps."""
    notes = {key: str(text).encode("latin-1") for key, text in words["notes"].items()}
    told = {"rows": words["rows"], "subscriptions": words["subscriptions"]}
    told["left_at"] = {format_name(name): modseq for name, modseq in left_at.items()}
    told["notes"] = {key: format_name(octets) for key, octets in _without_secrets(notes).items()}
    return json.dumps(told).encode()
