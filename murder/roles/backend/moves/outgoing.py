"""One mailbox tree on its way out: copied while people work, then stopped for a moment, compared, and handed over.

    copy      rounds of differences, until a round brings little
    stop      the store refuses changes, the tree is locked; the last round
    verify    counts, UIDs and numbers of both sides; octets and rows were read back batch by batch
    prepare   the target has written down that it will show them as soon as it is told
    hand over the master is told that nobody has them, the rows here go (from here on only forward), the target commits

Each step may happen again after a crash.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from murder.api import CarriesMailboxes
from murder.api.disk import DamagedError, DamagedMessageError
from murder.api.store import Mailbox, TellsRetained
from murder.api.turns import behind
from murder.errors import Code, Refusal
from murder.log import logger
from murder.model.carried import Portrait
from murder.model.entry import MailboxEntry
from murder.model.message import MAX_UID, Message, ModSeq, Uid
from murder.model.name import MailboxName, display, no_such_mailbox, owner_of
from murder.model.seqset import Ranges, compress, holds
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.hierarchy.intent import tree_of
from murder.roles.backend.moves.batches import AHEAD, batches_of, digest, read
from murder.roles.backend.moves.compare import digest_of, numbers_of
from murder.roles.backend.moves.journal import Journal, Move, State, intent_of
from murder.roles.backend.moves.target import Target
from murder.roles.backend.moves.verify import format_handed, subscriptions_of
from murder.roles.backend.records.annotations import notes_with, removed_with
from murder.roles.backend.shared import Backend
from murder.roles.mupdate.database.change import RemoveEntry
from murder.wire.nodes.carry_answers import Sum
from murder.wire.nodes.carry_words import Begin, Commit, Complete, Hold, Kept, Prepare, Rows

PAGE_MESSAGES: Final = 125  # rows read at once: others have their turn between
FEW: Final = 200  # a round that brought no more than this: what is left goes quickly
MAX_ROUNDS: Final = 10  # a mailbox that changes faster than it is copied is stopped all the same

Progress = Callable[[Move], None]


@dataclass(slots=True)
class Pace:
    """No more octets a second than the operator allows; 0: as fast as it goes."""

    octets_per_s: int
    sent: int = 0
    since: float = 0.0

    async def keep(self, octets: int) -> None:
        """Wait, where so many octets more would be faster than was asked for."""
        if not self.octets_per_s:
            return
        now = asyncio.get_running_loop().time()
        self.since = self.since or now
        self.sent += octets
        ahead = self.sent / self.octets_per_s - (now - self.since)
        if ahead > 0:
            await asyncio.sleep(ahead)


NEVER: Final = ModSeq(0)
HIGHEST: Final = ModSeq(2**63 - 1)  # above all that a client can be told (RFC 7162 §3.1)


@dataclass(slots=True)
class _Known:
    """What the target has of a mailbox: all that happened up to `modseq`, the octets of these messages, and of these that
    were expunged and may come back; None: it takes none of those. What is `\\Recent` changes without a mod-sequence."""

    mailbox_id: str  # another may have the name since
    modseq: ModSeq
    uids: Ranges
    kept: Ranges | None
    recent_from: Uid | None = None

    def has(self, uid: Uid) -> bool:
        return holds(self.uids, uid)

    def carried(self, last: Uid) -> None:
        """All messages up to `last` have been carried, or are gone."""
        highest = max(int(last), self.uids[-1][1] if self.uids else 0)
        if highest:
            self.uids = ((1, highest),)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch that the target has not answered for."""

    messages: int
    octets: int
    digest: str


class Outgoing:
    """See the module. `step` is called between steps (tests stop there)."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        move: Move,
        peer: Target,
        pace: Pace,
        listeners: Sequence[Progress] = (),
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        store = backend.store
        if not isinstance(store, CarriesMailboxes):
            raise Refusal(
                Code.CANNOT,
                f"The store {backend.config.store} cannot move mailboxes to other servers",
            )
        self._backend = backend
        self._store: CarriesMailboxes = store
        self._journal = journal
        self.move = move
        self._peer = peer
        self._pace = pace
        self._listeners = listeners  # as they are at each step
        self._step = step
        self.has_begun = False  # the target has answered that it takes the tree
        self._left_at: dict[MailboxName, int] = {}  # mod-sequences at the stop
        self._known: dict[MailboxName, _Known] = {}  # what the target has of each mailbox
        self._named: dict[
            str, MailboxName
        ] = {}  # by mailbox id: the name that the target has it under
        self._stays = False  # something that might come back: the target takes none of that

    async def _save(self, **changed: Any) -> None:
        self.move = await self._journal.save(self.move, **changed)
        self._tell()
        self._step(self.move.state.value)

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener(self.move)

    def _rows(self) -> list[MailboxEntry]:
        """The tree as it is in the list now: the root and what is below it."""
        mailboxes = self._backend.mailboxes
        root = mailboxes.find(self.move.root)
        if root is None:
            raise no_such_mailbox(self.move.root)
        return [root, *mailboxes.rows_below(self.move.root)]

    async def run(self) -> None:
        """From where it is, which is COPYING or HANDING, to its end. Raises Refusal, UpstreamFailure; then again later."""
        if self.move.state is State.HANDING:
            await self.hand_over()
            return await self.finished()
        await self.copy()
        await self.stop_and_hand_over()

    # --- while people work

    async def copy(self) -> None:
        """Until the target has nearly everything. Raises Refusal, UpstreamFailure."""
        move = self.move
        begin = Begin(move.id, move.root, move.partition, self._backend.server_name)
        await self._peer.do(begin)
        self.has_begun = True
        for entry in self._rows():
            with self._damage_told(entry.name):
                await self._announce(entry.name)
        for _ in range(MAX_ROUNDS):
            brought = await self._round([entry.name for entry in self._rows()])
            self._step("round")
            if brought <= FEW:
                return

    @contextlib.contextmanager
    def _damage_told(self, name: MailboxName) -> Iterator[None]:
        """Where the damage is, and what mends it: who has asked for the move may sit at another server."""
        try:
            yield
        except DamagedError as damage:
            is_message = isinstance(damage, DamagedMessageError)
            what = "a message is damaged" if is_message else "its mail is damaged"
            cure = f"`murder ctl store check`, `store repair`, then `move resume {self.move.id}`"
            text = f"{display(name)} at {self._backend.server_name}: {what}: {cure}"
            raise DamagedError(damage.code, text, names=(name,)) from damage

    async def _announce(self, name: MailboxName) -> None:
        """What the target cannot have (a name, say) it refuses before any mail goes over."""
        try:
            portrait = await self._store.portrait(name, HIGHEST)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:  # deleted or renamed since
                raise
            return
        await self._hold(name, portrait)

    async def _round(self, names: Sequence[MailboxName]) -> int:
        """Every mailbox once; how many messages went over."""
        total = 0
        anew: dict[MailboxName, str] = {}
        for name in names:
            with self._damage_told(name):
                total += await self._carry(name, anew)
        for name in self._in_order(anew):
            with self._damage_told(name):
                total += await self._carry(name)
        self.move = await self._journal.save(self.move, names=tuple(names))
        return total

    def _in_order(self, anew: Mapping[MailboxName, str]) -> Iterable[MailboxName]:
        """These names, with the ids of what is to be held under them: before each the one to which the target moves what it
        has there now. Else that would be removed to make room, and copied once more; in a circle one is."""
        goes_to = {mailbox_id: name for name, mailbox_id in anew.items()}
        order: dict[MailboxName, None] = {}
        for first in anew:
            chain: dict[MailboxName, None] = {}
            name: MailboxName | None = first
            while name is not None and name not in order and name not in chain:
                chain[name] = None
                there = self._known.get(name)
                name = goes_to.get(there.mailbox_id) if there is not None else None
            order.update(dict.fromkeys(reversed(chain)))
        return order

    async def _carry(self, name: MailboxName, anew: dict[MailboxName, str] | None = None) -> int:
        """What has happened in one mailbox since it was last carried. With `anew`, what the target does not have under this
        name is only put there."""
        known = self._known.get(name)
        mailbox = None
        try:
            portrait = await self._store.portrait(name, known.modseq if known else NEVER)
            if known is None or known.mailbox_id != portrait.identity.mailbox_id:
                if anew is not None:
                    anew[name] = portrait.identity.mailbox_id
                    return 0
                known = await self._hold(name, portrait)
                portrait = await self._store.portrait(name, known.modseq)
            if portrait.highest_modseq != known.modseq:
                mailbox = await self._backend.store.open(name, owner_of(name) or "")
            elif portrait.recent_from == known.recent_from:
                return 0
        except Refusal as refusal:
            if refusal.code is Code.NONEXISTENT:  # deleted or renamed since
                return 0
            raise
        brought = 0
        if mailbox is not None:
            brought, is_whole = await self._carry_mail(mailbox, name, known)
            if not is_whole:
                return brought
        if portrait.identity.mailbox_id != known.mailbox_id:
            return brought  # another's: in the next round
        await self._peer.do(Complete(name, portrait))
        known.modseq, known.recent_from = portrait.highest_modseq, portrait.recent_from
        return brought

    async def _carry_mail(
        self, mailbox: Mailbox, name: MailboxName, known: "_Known"
    ) -> tuple[int, bool]:
        """How many messages went over, and whether those are all: another may have the name by now."""
        try:
            if mailbox.mailbox_id != known.mailbox_id:
                return 0, False
            brought, is_whole = await self._carry_messages(mailbox, name, known)
            if is_whole:
                brought += await self._carry_kept(mailbox, name, known)
            return brought, is_whole
        finally:
            mailbox.close()

    async def _hold(self, name: MailboxName, portrait: Portrait) -> "_Known":
        """Let the target make the mailbox; what it has of it (of an earlier try, or from before it moved away)."""
        mailbox_id = portrait.identity.mailbox_id
        held = await self._peer.hold(Hold(name, portrait))
        was = self._named.get(mailbox_id, name)
        if was in self._known and self._known[was].mailbox_id == mailbox_id:
            del self._known[was]  # the target has nothing more under that name
        self._named[mailbox_id] = name
        known = self._known[name] = _Known(mailbox_id, held.modseq, held.uids, held.kept)
        return known

    async def _carry_messages(
        self, mailbox: Mailbox, name: MailboxName, known: "_Known"
    ) -> tuple[int, bool]:
        """As `_carry_mail`."""
        last, brought, is_whole = Uid(0), 0, True
        sent: deque[_Sent] = deque()

        async def pages(after: Uid) -> Sequence[Message]:
            nonlocal is_whole
            page = await self._page(mailbox, name, known.modseq, after)
            is_whole = page is not None
            return page or ()

        async for batch in batches_of(pages, known.has):
            sent.append(await self._send_batch(mailbox, name, batch, known))
            last, brought = batch[-1].uid, brought + len(batch)
            if len(sent) >= AHEAD:
                await self._confirm(name, sent.popleft())
        while sent:
            await self._confirm(name, sent.popleft())
        if is_whole:
            known.carried(last)
        return brought, is_whole

    async def _page(
        self, mailbox: Mailbox, name: MailboxName, since: ModSeq, after: Uid
    ) -> Sequence[Message] | None:
        """The next rows; None where the name is another mailbox's by now, or nobody's: the rows of one with the octets of
        the other would be neither."""
        try:
            page = await self._store.rows(name, since, after, PAGE_MESSAGES)
            is_same = await _mailbox_id(self._backend, name) == mailbox.mailbox_id
        except Refusal as refusal:
            if refusal.code is Code.NONEXISTENT:
                return None
            raise
        return page if is_same else None

    async def _carry_kept(self, mailbox: Mailbox, name: MailboxName, known: "_Known") -> int:
        """What was expunged and may come back; what may no more goes at the target, too. How many went over."""
        if not isinstance(mailbox, TellsRetained):
            return 0
        if known.kept is None:
            self._stays = self._stays or bool(await mailbox.retained(Uid(0), 1))
            return 0
        before, moments = known.kept, dict[Uid, int]()

        async def pages(after: Uid) -> Sequence[Message]:
            page = await mailbox.retained(after, PAGE_MESSAGES)
            moments.update((kept.message.uid, int(kept.at.timestamp())) for kept in page)
            return [kept.message for kept in page]

        last, brought = Uid(0), 0
        async for batch in batches_of(pages, lambda uid: holds(before, uid)):
            rows = await read(mailbox, batch, lambda row: not holds(before, row.uid))
            sent = [(row, moments[row.uid], octets is not None) for row, octets in rows]
            await self._send_kept(Kept(name, last, batch[-1].uid, sent), rows)
            last, brought = batch[-1].uid, brought + sum(octets is not None for _, octets in rows)
        if before and before[-1][1] > last:
            await self._send_kept(Kept(name, last, MAX_UID, ()), ())
        known.kept = compress(moments)
        return brought

    async def _send_kept(
        self, kept: Kept, rows: Sequence[tuple[Message, memoryview | None]]
    ) -> None:
        sum_of_all = behind(digest, rows)
        await self._peer.send_kept(kept)
        sent = 0
        for _, octets in rows:
            if octets is not None:
                await self._peer.send_octets(octets)
                sent += len(octets)
        await self._pace.keep(sent)
        if (await self._peer.stored()).digest != await sum_of_all:
            raise Refusal(
                Code.CANNOT,
                f"What was expunged from {display(kept.name)} has not come to {self._peer.server} as it was sent",
            )

    async def _send_batch(
        self, mailbox: Mailbox, name: MailboxName, rows: Sequence[Message], known: "_Known"
    ) -> "_Sent":
        """Rows, and the octets of those that the target lacks; what has gone since is told in the next round."""
        carried = await read(mailbox, rows, lambda row: not known.has(row.uid))
        sum_of_all = behind(digest, carried)
        sent_rows = [(row, octets is not None) for row, octets in carried]
        await self._peer.send_rows(Rows(name, sent_rows))
        messages, sent = 0, 0
        for _, octets in carried:
            if octets is not None:
                await self._peer.send_octets(octets)
                messages, sent = messages + 1, sent + len(octets)
        await self._pace.keep(sent)
        return _Sent(messages, sent, await sum_of_all)

    async def _confirm(self, name: MailboxName, sent: "_Sent") -> None:
        """The target answers with a digest of what it reads back."""
        answer = await self._peer.stored()
        if answer.digest != sent.digest:
            raise Refusal(
                Code.CANNOT,
                f"{self._peer.server} has not kept messages of {display(name)} as they were sent",
            )
        self.move = _counted(self.move, sent.messages, sent.octets)
        self._tell()

    # --- the stop

    async def stop_and_hand_over(self) -> None:
        """Raises Refusal, UpstreamFailure: up to HANDING all is then as before; later, it has to go on."""
        began = time.monotonic()
        await self._backend.announcer.hold(intent_of(self.move))
        try:
            self._let_others_first()
            rows = self._rows()
            await self._save(state=State.STOPPED, names=tuple(row.name for row in rows))
            await freeze(self._backend, [row.name for row in rows], True)
            self._step("frozen")
            await self._round([row.name for row in rows])
            await self._verify([row.name for row in rows])
            await self._prepare(rows)
        except asyncio.CancelledError:
            with contextlib.suppress(Refusal, OSError):  # STOPPED: whoever goes on releases it
                await self.release()
            raise
        except BaseException:
            await self.release()
            raise
        await self._save(state=State.HANDING)
        await self.hand_over()
        await self.finished(time.monotonic() - began)

    def _let_others_first(self) -> None:
        """What comes to the locked tree and is prepared waits for that lock, and its mailboxes are nowhere until it has it:
        as long as this move may wait for *its* target. Raises Refusal(IN_USE)."""
        tree = tree_of(self.move.root)
        for other in self._journal.moves():
            if tree_of(other.root) == tree and self._journal.was_just_prepared(other):
                coming = f"The move {other.id} of {display(other.root)} is about to end here"
                raise Refusal(Code.IN_USE, f"{coming}: this one goes on behind it")

    async def finished(self, stop_s: float = 0.0) -> None:
        """It is over; what has left is kept for a while."""
        log = logger(role="backend", move=self.move.id, mailbox=display(self.move.root))
        if self._stays:
            log.warning("move.expunged_stay", backend=self._peer.server)
        await self._save(state=State.DONE, finished_at=time.time(), stop_s=stop_s, problem="")
        move = self.move
        log.info(
            "move.done",
            target=move.server,
            messages=move.messages,
            octets=move.octets,
            stop_ms=round(1000 * move.stop_s, 1),
        )

    async def release(self) -> None:
        """Back to COPYING: people work again. Not from HANDING on."""
        await thaw(self._backend, self.move)
        self.move = await self._journal.save(self.move, state=State.COPYING)

    async def _verify(self, names: Sequence[MailboxName]) -> None:
        for name in names:
            with self._damage_told(name):
                ours = await sum_of(self._backend, name)
            self._left_at[name] = ours.highest_modseq
            theirs = await self._peer.sum(name)
            if wrong := ours.differing(theirs):
                raise Refusal(
                    Code.CANNOT,
                    f"{display(name)} is not the same at {self._peer.server}: {', '.join(wrong)} differ",
                )
        self._step("verified")

    async def _prepare(self, rows: Sequence[MailboxEntry]) -> None:
        """All that is not in the store: rows, access lists, notes, subscriptions."""
        mailboxes = self._backend.mailboxes
        subscriptions = await subscriptions_of(self._backend, self.move.root)
        notes = notes_with(mailboxes.list, [row.name for row in rows])
        prepare = Prepare([(row.name, row.raw_acl) for row in rows], notes, subscriptions)
        handed = self._journal.save_handed(self.move, format_handed(prepare, self._left_at))
        # the two disks are waited for together
        await asyncio.gather(self._peer.do(prepare), handed)

    # --- only forward

    async def hand_over(self) -> None:
        """From HANDING: tell the master, let go, tell the target. Raises Refusal, UpstreamFailure; then again later."""
        backend, move = self._backend, self.move
        rows = [row for name in move.names if (row := backend.mailboxes.find(name)) is not None]
        await backend.announcer.withdraw(rows)
        self._step("deactivated")
        ids = [await _mailbox_id(backend, row.name) for row in rows]
        gone: list[Any] = [RemoveEntry(row.name) for row in rows]
        gone += removed_with(backend.mailboxes.list, [row.name for row in rows])
        if gone:
            await backend.announcer.commit(gone)
        for mailbox_id in ids:
            backend.tracker.mailbox_changed(mailbox_id)
        for row in rows:
            backend.events.publish(News(Kind.LEFT, row.name))
        self._step("let go")
        await self._peer.do(Commit(move.id))
        self._step("committed")
        await backend.announcer.finish(intent_of(self.move), [])


def _counted(move: Move, messages: int, octets: int) -> Move:
    return replace(move, messages=move.messages + messages, octets=move.octets + octets)


async def _mailbox_id(backend: Backend, name: MailboxName) -> str:
    mailbox = await backend.store.open(name, "")
    try:
        return mailbox.mailbox_id
    finally:
        mailbox.close()


async def freeze(backend: Backend, names: Iterable[MailboxName], frozen: bool) -> None:
    """Let nobody change these mailboxes, or all again. Raises Refusal."""
    store = backend.store
    assert isinstance(store, CarriesMailboxes)
    await asyncio.gather(*(store.freeze(name, frozen) for name in names))


async def thaw(backend: Backend, move: Move) -> None:
    """People work again in what a move had stopped; mailboxes that are gone are passed over. Raises Refusal where a full
    disk, say, keeps some as they are: that one is to be done again, the others and their tree are free."""
    trouble = None
    for name in move.names:
        try:
            await freeze(backend, [name], False)
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                trouble = refusal
    await backend.announcer.finish(intent_of(move), [])
    if trouble is not None:
        raise trouble


async def sum_of(backend: Backend, name: MailboxName) -> Sum:
    """What must be the same on both sides in the end."""
    mailbox = await backend.store.open(name, owner_of(name) or "")
    try:
        status = await mailbox.status()
        uids = await mailbox.uids()
    finally:
        mailbox.close()
    return Sum(**numbers_of(status), uids=await behind(digest_of, uids))
