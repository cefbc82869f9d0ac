"""Both ends of a move compared completely, while it runs and as long as the old copy is kept: `XFERS VERIFY`.

The source drives it: its own store and the target's answers (`tell`) are read side by side (`compare`). Rights,
metadata, quota and subscriptions have left the source's list with the mailboxes; what it handed over is in the journal.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from murder.api import CarriesMailboxes
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
from murder.net.turns import in_turns
from murder.roles.backend.moves.compare import (
    Compared,
    Fetch,
    Sides,
    Verdict,
    compare_facts,
    compare_rows,
    numbers_of,
)
from murder.roles.backend.moves.journal import Handed, Journal, Move, Side, State
from murder.roles.backend.moves.peer import Peer
from murder.roles.backend.records.annotations import notes_with, without_entry
from murder.roles.backend.shared import Backend
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.carry_answers import CopyRows, Facts, Row, Tree, TreeRow
from murder.wire.nodes.carry_words import Compare, Prepare, format_prepared

ROWS: Final = 200  # of one answer
HASHED_OCTETS: Final = 32 * 1024 * 1024  # of one answer, unless a single message has more
TRIES: Final = 3  # of a mailbox that changes while it is compared
AFTER: Final = frozenset({State.HANDING, State.DONE})  # the target has the newer copy
DURING: Final = frozenset({State.COPYING, State.STOPPED, State.FAILED})


# --- what one end tells of its store


async def facts_of(backend: Backend, name: MailboxName, upto: int) -> Facts:
    """See `Facts`; `upto` a mod-sequence, -1: the mailbox's own. Raises Refusal."""
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
    return Facts(
        numbers_of(status),
        portrait.identity.mailbox_id,
        compress(gone),
        before.hexdigest(),
        {
            reader: hashlib.sha256(repr(sorted(map(int, uids))).encode()).hexdigest()
            for reader, uids in portrait.seen.items()
            if uids
        },
    )


async def rows_of(backend: Backend, name: MailboxName, after: Uid) -> list[Row]:
    """The next messages, their octets read and digested. Raises Refusal."""
    store = backend.store
    assert isinstance(store, CarriesMailboxes)
    rows: list[Row] = []
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
            rows.append(Row(message, digest, problem))
            read += message.size
            if read >= HASHED_OCTETS:
                break
    finally:
        mailbox.close()
    return rows


async def _tree(backend: Backend, root: MailboxName) -> list[TreeRow]:
    """What the list shows of a tree, and what of it rests since it was deleted."""
    rows = [row async for row in in_turns(backend.mailboxes.rows_below(root))]
    if (top := backend.mailboxes.find(root)) is not None:
        rows.append(top)
    prefix = deleted_name(root, 0).removesuffix(b".0")
    async for row in in_turns(backend.mailboxes.list.walk(prefix=prefix)):
        if is_of_tree(row.name, root):
            rows.append(row)
    tree_rows = []
    async for row in in_turns(rows):
        try:
            mailbox = await backend.store.open(row.name, "")
        except Refusal:
            continue
        tree_rows.append(TreeRow(row.name, mailbox.mailbox_id, row.raw_acl, row.seq))
        mailbox.close()
    return tree_rows


async def tell(backend: Backend, move: Move, request: Compare) -> Tree | Facts | CopyRows:
    """Answer the other end about a move that came from there. Raises Refusal."""
    root, name = request.root, request.name
    if not is_of_tree(name, root):
        raise Refusal(Code.CANNOT, f"{display(name)} is no part of {display(root)}")
    match request.what:
        case "tree":
            left = backend.journal.keeps(root)
            return Tree(
                tuple(await _tree(backend, root)),
                told_notes(backend, root),
                tuple(await subscriptions_of(backend, root)),
                move.shown_seq,
                move.names,
                left.server if left is not None and left.side is Side.OUT else "",
            )
        case "facts":
            return await facts_of(backend, name, request.number)
        case "rows":
            return CopyRows(tuple(await rows_of(backend, name, Uid(max(0, request.number)))))
        case other:
            raise Refusal(Code.CANNOT, f"{other} is unknown here")


def told_notes(backend: Backend, root: MailboxName) -> dict[str, bytes]:
    """The notes of a tree, without secrets."""
    names = [root, *(row.name for row in backend.mailboxes.below(root))]
    return _without_secrets(notes_with(backend.mailboxes.list, names))


def _without_secrets(notes: Mapping[str, bytes]) -> dict[str, bytes]:
    """The keys of URLs (RFC 4467) are compared by their digests; when POP3 came last is not compared."""
    comparable = {}
    for key, octets in notes.items():
        if key.startswith("u/"):
            octets = hashlib.sha256(octets).hexdigest().encode()
        elif key.startswith("a/") and LASTPOP.encode() in octets:
            octets = without_entry(octets, LASTPOP)
        if octets:
            comparable[key] = octets
    return comparable


async def changed_since(backend: Backend, handed: Handed) -> MailboxName | None:
    """A mailbox that is kept, and is not as it left: other software has put mail into its files, say."""
    for name, modseq in handed.left_at.items():
        try:
            mailbox = await backend.store.open(name, "")
        except Refusal:
            continue  # gone already
        try:
            status = await mailbox.status()
        finally:
            mailbox.close()
        if status.highest_modseq != modseq:
            return name
    return None


async def subscriptions_of(backend: Backend, root: MailboxName) -> list[MailboxName]:
    """They move with a user's INBOX."""
    owner = owner_of(root)
    if owner is None or not is_inbox(root):
        return []
    return sorted(await backend.store.subscriptions(owner))


# --- the source, comparing


@dataclass(frozen=True, slots=True)
class _End:
    """A mailbox at one end; `peer` is None for our own."""

    backend: Backend
    move: Move
    name: MailboxName
    peer: Peer | None

    def _request(self, what: str, number: int = -1) -> Compare:
        return Compare(self.move.id, self.move.root, self.name, what, number)

    async def facts(self, upto: int) -> Facts:
        """See `facts_of`."""
        if self.peer is None:
            return await facts_of(self.backend, self.name, upto)
        return await self.peer.facts(self._request("facts", upto))

    async def rows(self, after: Uid) -> Sequence[Row]:
        """See `rows_of`."""
        if self.peer is None:
            return await rows_of(self.backend, self.name, after)
        return (await self.peer.rows(self._request("rows", int(after)))).rows


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
        root = self._move.root
        tree = await self._peer.tree(Compare(self._move.id, root, root, "tree", -1))
        if self._is_after:
            if tree.left_to:
                raise Refusal(
                    Code.CANNOT,
                    f"{display(root)} has moved on from {self._move.server} to "
                    f"{tree.left_to}: verify that move",
                )
            async for compared in self._after(tree):
                yield compared
        else:
            async for compared in self._during(tree):
                yield compared

    # --- the move runs: the target's copy is the older one

    async def _during(self, tree: Tree) -> AsyncIterator[Compared]:
        mailboxes = self._backend.mailboxes
        arrived = set(tree.names)
        root = mailboxes.find(self._move.root)
        names = [] if root is None else [root.name]
        names += [head.name async for head in in_turns(mailboxes.below(self._move.root))]
        async for name in in_turns(names):
            if name in arrived:
                yield await self._compare(
                    name, self._end(name, there=True), self._end(name, there=False)
                )
            else:
                compared = Compared(name)
                compared.note(Verdict.CHANGED, "not transferred yet")
                yield compared
        compared = Compared(self._move.root)
        compared.note(
            Verdict.SAME, "rights, metadata, quota and subscriptions are transferred last"
        )
        yield compared

    # --- the move is over: the source's copy is the older one

    async def _after(self, tree: Tree) -> AsyncIterator[Compared]:
        there = {row.mailbox_id: row for row in tree.rows}
        handed = self._journal.handed(self._move)
        acls = dict(handed.rows) if handed else {}
        matched: set[str] = set()
        for name in self._move.names:
            try:
                mailbox = await self._backend.store.open(name, "")
            except Refusal as refusal:
                compared = Compared(name)
                compared.note(
                    Verdict.DIFFERENT, f"{self._sides.older} keeps it no more: {refusal.text}"
                )
                yield compared
                continue
            mailbox_id = mailbox.mailbox_id
            mailbox.close()
            row = there.get(mailbox_id)
            if row is None:
                compared = Compared(name)
                text = f"it is not at {self._sides.newer}: deleted there since, or lost"
                compared.note(Verdict.DIFFERENT, text)
                yield compared
                continue
            matched.add(mailbox_id)
            compared = await self._compare(
                name, self._end(name, there=False), self._end(row.name, there=True)
            )
            if row.name != name:
                compared.note(Verdict.CHANGED, f"it is called {display(row.name)} now")
            self._compare_rights(compared, acls.get(name), row, tree.shown_seq)
            yield compared
        whole = Compared(self._move.root)
        for mailbox_id, row in there.items():
            if mailbox_id not in matched:
                whole.note(Verdict.CHANGED, f"{display(row.name)} has been made since")
        self._compare_whole(whole, handed, tree)
        if whole.verdict is not Verdict.SAME or whole.told:
            yield whole

    def _compare_rights(
        self, compared: Compared, raw_acl: bytes | None, row: TreeRow, shown_seq: int
    ) -> None:
        if raw_acl is None or raw_acl == row.raw_acl:
            return
        text = f"rights were {_shown(raw_acl)}, and are {_shown(row.raw_acl)}"
        is_later = shown_seq and row.seq > shown_seq
        compared.note(Verdict.CHANGED if is_later else Verdict.DIFFERENT, text)

    def _compare_whole(self, compared: Compared, handed: Handed | None, tree: Tree) -> None:
        """What has no date: a difference may have been made since, and the operator is told both."""
        if handed is None:
            compared.note(
                Verdict.SAME,
                "rights, metadata, quota and subscriptions as handed over are not known",
            )
            return
        notes, now = handed.notes, tree.notes
        for key in sorted(notes.keys() | now.keys()):
            if notes.get(key) != now.get(key):
                text = f"{_differing(key, notes.get(key, b''), now.get(key, b''))} (not dated)"
                compared.note(Verdict.CHANGED, text)
        before, after = set(handed.subscriptions), set(tree.subscriptions)
        for name in sorted(before ^ after):
            word = "subscribed to" if name in after else "no longer subscribed to"
            compared.note(Verdict.CHANGED, f"{word} {format_name(name)} since (not dated)")

    # --- one mailbox

    async def _compare(self, name: MailboxName, older: _End, newer: _End) -> Compared:
        """Again where it differs and has changed meanwhile."""
        for _ in range(TRIES):
            compared = Compared(name)
            try:
                is_steady = await self._compare_once(compared, older, newer)
            except Refusal as refusal:
                compared.note(Verdict.DIFFERENT, f"it cannot be read: {refusal.text}")
                return compared
            if compared.verdict is not Verdict.DIFFERENT or is_steady:
                break
        return compared

    async def _compare_once(self, compared: Compared, older: _End, newer: _End) -> bool:
        """Whether neither side has changed meanwhile."""
        before = await older.facts(-1)
        began = await newer.facts(before.modseq)
        fetch: tuple[Fetch, Fetch] = (older.rows, newer.rows)
        missing, counts = await compare_rows(compared, self._sides, before, *fetch)
        ended = await newer.facts(before.modseq)
        compare_facts(compared, self._sides, before, ended, missing)
        is_steady = began == ended and before == await older.facts(-1)
        if is_steady:
            sides = (self._sides.older, self._sides.newer)
            for side, facts, count in zip(sides, (before, ended), counts, strict=True):
                if facts.numbers["messages"] != count:
                    words = f"{side} counts {facts.numbers['messages']} messages and has {count}"
                    compared.note(Verdict.DIFFERENT, words)
        return is_steady


def _differing(key: str, before: bytes, after: bytes) -> str:
    """What of a note is not as it was (see `annotations.NOTE_KEYS`)."""
    kind, _, name = key.partition("/")
    if kind == "u":
        return f"the keys of URLs to {name} do not match"
    if kind == "q":
        was, now = format_name(before), format_name(after)
        return f"the quota of {name} was {was or 'none'}, and is {now or 'none'}"
    had, has = (json.loads(note) if note else {} for note in (before, after))
    entries = {
        entry
        for scope in had.keys() | has.keys()
        for entry in had.get(scope, {}).keys() | has.get(scope, {}).keys()
        if had.get(scope, {}).get(entry) != has.get(scope, {}).get(entry)
    }
    return f"metadata of {name} differs: {', '.join(sorted(entries))}"


def _shown(raw_acl: bytes) -> str:
    return " ".join(format_name(raw_acl).split("\t")).strip() or "none"


def format_handed(prepare: Prepare, left_at: Mapping[MailboxName, int]) -> bytes:
    """What the source remembers of what it told the target to show, and the mod-sequences of what it keeps."""
    words = format_prepared(replace(prepare, notes=_without_secrets(prepare.notes)))
    words["left_at"] = {format_name(name): modseq for name, modseq in left_at.items()}
    return json.dumps(words).encode()
