"""CREATE, DELETE, RENAME and SETACL as steps that a crash cannot leave half done: intent, master, store, list.

Each operation writes an intent (with the names it takes) into the local list, then acts at the master and in the store,
then commits list and intent together. Until that commit a start after a crash undoes it (a delete is finished); what the
master then still has wrong, the comparison of the two lists puts right (`resync`). Without a master the steps there are
left out. RFC 3656 §4; DESIGN: "Announce".
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Final

from murder.api.store import MailboxStore, StoredMailbox
from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.acl import Acl, format_acl, parse_acl
from murder.model.entry import EntryState, Location, MailboxEntry
from murder.model.name import (
    MailboxName,
    display,
    is_quarantined,
    no_such_mailbox,
)
from murder.roles.backend.changes.events import Events, MasterMayDiffer
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.hierarchy.intent import (
    Intent,
    Operation,
    Stage,
    format_intent,
    is_alive,
    let_in,
    parse_intent,
    this_process,
    tree_of,
)
from murder.roles.backend.hierarchy.left import Left
from murder.roles.backend.hierarchy.master import Master
from murder.roles.backend.hierarchy.queues import Queues
from murder.roles.backend.records.annotations import moved_with, removed_with
from murder.roles.backend.renames.mailboxes import carried_out
from murder.roles.backend.renames.rows import Moves, Taken, news_of_rename
from murder.roles.mupdate.commits.ledger import Ledger
from murder.roles.mupdate.database.change import (
    Change,
    PutEntry,
    PutIntent,
    RemoveEntry,
    RemoveIntent,
)
from murder.roles.mupdate.database.transaction import ListTransaction

LOCK_WAIT_S: Final = 20.0  # for other operations in the same tree, all in all
LOCK_PAUSE_S: Final = 0.05
UNDO_WAIT_S: Final = 20.0
UNDO_PAUSE_S: Final = 0.5
AT_ONCE: Final = 50  # commands to the master in flight for one operation


async def _nothing_to_do(*_: object) -> None:
    pass


class Announcer:
    """All changes of this backend's hierarchy, in this worker. `step` is called between steps (tests stop there)."""

    def __init__(
        self,
        ledger: Ledger,
        store: MailboxStore,
        master: Master | None,
        location: Location,
        events: Events,
        make_room_for: Callable[..., Awaitable[None]] = _nothing_to_do,
        process: str = "",
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._master = master
        self.location = location
        self.process = process or this_process()
        self._queues = Queues()
        self._log = logger(role="backend")
        self.step: Callable[[str], None] = lambda _: None
        self._events = events  # what has been done, and names that the master may have wrong
        # lets go of what the store still has under a name, of a mailbox that moved away
        self.make_room_for = make_room_for
        self.left = Left(self.is_held, self.settle, events)

    # --- the operations

    async def create(
        self,
        name: MailboxName,
        raw_acl: bytes,
        partition: str = "",
        mailbox_id: str = "",
        beside: Sequence[Change] = (),
        fill: Callable[[], Awaitable[None]] | None = None,
    ) -> StoredMailbox:
        """Make a mailbox: durable and known to the master on return, with the changes `beside` it. `fill` gives it mail,
        all or none, before anybody sees it (INBOX renamed, RFC 3501 §6.3.5).

        Raises Refusal, UpstreamFailure.
        """
        place = Location(self.location.server, partition or self.location.partition)
        reserved = MailboxEntry(name, EntryState.RESERVED, bytes(place), raw_acl)

        def begin(transaction: ListTransaction) -> list[Change]:
            if transaction.find(name) is not None:
                raise Refusal(Code.ALREADY_EXISTS, "The mailbox exists already")
            return [PutEntry(reserved)]

        mailbox_id = mailbox_id or secrets.token_hex(8)
        operation = Operation.CREATE if fill is None else Operation.SPLIT
        intent = Intent(operation, ((name, name),), self.process, mailbox_id)
        async with self._operation(intent, begin):
            try:
                await self._reserve([name], bytes(place))
                self.step("reserved")
                await self.make_room_for(name, mailbox_id)
                stored = await self._store.create(name, place.partition, mailbox_id)
                self.step("stored")
                await self._activate([(name, bytes(place), raw_acl)])
                self.step("activated")
                if fill is not None:
                    await fill()
                    self.step("filled")
                active = MailboxEntry(name, EntryState.ACTIVE, bytes(place), raw_acl)
                await self._finish(intent, [PutEntry(active), *beside])
            except Exception:
                await self._undo(intent, at_master=[name])
                raise
        self._events.publish(News(Kind.CREATED, name))
        return stored

    async def delete(self, names: Sequence[MailboxName]) -> None:
        """Remove mailboxes, children first. Raises Refusal, UpstreamFailure: then none of them is gone."""
        intent = Intent(Operation.DELETE, tuple((name, name) for name in names), self.process)

        def begin(transaction: ListTransaction) -> list[Change]:
            for name in names:
                entry = transaction.find(name)
                if entry is None or not entry.is_active:
                    raise no_such_mailbox(name)
            return []

        async with self._operation(intent, begin):
            try:
                await self._at_master(lambda master, name: master.delete(name), names)
            except (Refusal, UpstreamFailure):
                await self._restore_at_master(names)
                await self._give_up(intent)
                raise
            self.step("unannounced")
            for name in names:
                await self._store.delete(name)
                self.step("removed")
            removed: list[Change] = [RemoveEntry(name) for name in names]
            removed += removed_with(self._ledger.mailboxes, names)
            await self._finish(intent, removed)
        for name in names:
            self._events.publish(News(Kind.DELETED, name))

    async def rename(self, moves: Moves) -> None:
        """Rename mailboxes (old, new), all or none. Raises Refusal, UpstreamFailure."""
        intent = Intent(Operation.RENAME, tuple(moves), self.process)
        taken = Taken(moves)
        async with self._operation(intent, taken.begin):
            try:
                await self._rename_steps(intent, taken.rows)
            except Exception:
                await self._undo(intent, at_master=[new for _, new in moves])
                await self._restore_at_master([old for old, _ in moves])
                raise
        for news in news_of_rename(moves):
            self._events.publish(news)

    async def _rename_steps(self, intent: Intent, taken: Sequence[MailboxEntry]) -> None:
        await self._reserve_rows(taken)
        self.step("reserved")
        for old, new in intent.moves:
            await self.make_room_for(new, "")
            await self._store.rename(old, new)
            self.step("moved")
        old_names = [old for old, _ in intent.moves]
        await self._at_master(lambda master, name: master.delete(name), old_names)
        self.step("unannounced")
        rows = map(self._ledger.mailboxes.find, old_names)
        acls = [b"" if row is None else row.raw_acl for row in rows]
        renamed = [
            MailboxEntry(new.name, EntryState.ACTIVE, new.raw_location, raw_acl)
            for new, raw_acl in zip(taken, acls, strict=True)
        ]
        await self.announce(renamed)
        self.step("activated")
        changes: list[Change] = [RemoveEntry(name) for name in old_names]
        changes += map(PutEntry, renamed)
        changes += moved_with(self._ledger.mailboxes, intent.moves)
        await self._finish(intent, changes)

    async def set_acl(self, name: MailboxName, change: Callable[[Acl], Acl]) -> bytes:
        """Change the access list; the new one. Raises Refusal (`change` may, too), UpstreamFailure: then nothing has
        changed."""
        intent = Intent(Operation.SET_ACL, ((name, name),), self.process)
        decided: list[tuple[MailboxEntry, bytes]] = []

        def begin(transaction: ListTransaction) -> list[Change]:
            entry = transaction.find(name)
            if entry is None or not entry.is_active:
                raise no_such_mailbox(name)
            decided[:] = [(entry, format_acl(change(parse_acl(entry.raw_acl))))]
            return []

        async with self._operation(intent, begin):
            entry, raw_acl = decided[0]
            try:
                await self._activate([(name, entry.raw_location, raw_acl)])
                self.step("activated")
                changed = MailboxEntry(name, EntryState.ACTIVE, entry.raw_location, raw_acl)
                await self._finish(intent, [PutEntry(changed)])
            except Exception:
                await self._restore_at_master([name])
                await self._finish(intent, [])
                raise
        self._events.publish(News(Kind.ACL, name))
        return raw_acl

    # --- the parts

    @asynccontextmanager
    async def _operation(
        self, intent: Intent, begin: Callable[[ListTransaction], list[Change]]
    ) -> AsyncIterator[None]:
        """Hold the trees (in this worker by locks, in all by the written intent) and write the intent down."""
        async with self._queues.alone_in(intent.trees, LOCK_WAIT_S) as left_s:
            await self._write_intent(intent, intent.trees, begin, left_s)
            self.step("intended")
            with self.left.noting(intent):
                yield
            self.step("finished")

    async def _write_intent(
        self,
        intent: Intent,
        trees: Sequence[str],
        begin: Callable[[ListTransaction], list[Change]],
        wait_s: float = LOCK_WAIT_S,
    ) -> None:
        octets = format_intent(intent)

        def propose(transaction: ListTransaction) -> None:
            if any(transaction.intent(tree) is not None for tree in trees):
                raise Refusal(Code.IN_USE, "Another change of this mailbox is under way")
            changes = begin(transaction)
            changes += [PutIntent(tree, octets) for tree in trees]
            transaction.check(changes)
            for change in changes:
                transaction.apply(change)

        give_up_at = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                await self._ledger.submit(propose)
                return
            except asyncio.CancelledError:
                if intent.operation in (Operation.HELD, Operation.MOVE):  # a lock, and nothing else
                    # it may be on its way to the disk: what takes it back comes behind it
                    self._ledger.propose([lambda view: let_in(view, intent, [])], lambda _: None)
                raise
            except Refusal as refusal:
                too_late = asyncio.get_running_loop().time() > give_up_at
                if refusal.code is not Code.IN_USE or too_late:
                    raise
            await asyncio.sleep(LOCK_PAUSE_S)

    async def _finish(self, intent: Intent, changes: Sequence[Change]) -> None:
        """The commit at which the operation has happened."""
        await self._ledger.commit([*changes, *(RemoveIntent(tree) for tree in intent.trees)])

    async def _give_up(self, intent: Intent) -> None:
        """Nothing has been done of it, and nothing will be. Raises Refusal where that cannot be written: it is `left`."""
        try:
            await self._finish(intent, [])
        except Exception:
            self.left.note(intent, replace(intent, operation=Operation.HELD))
            raise

    async def _undo(self, intent: Intent, at_master: Iterable[MailboxName]) -> None:
        """An operation has failed before its last commit: as if it had never begun. What failed it may hinder this, too, for
        a moment. Raises Refusal where it does so for long: then it is `left`."""
        give_up_at = asyncio.get_running_loop().time() + UNDO_WAIT_S
        while True:
            try:
                await self.settle(intent)
                break
            except Refusal:
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
            await asyncio.sleep(UNDO_PAUSE_S)
        names = list(at_master)
        try:
            await self._at_master(lambda master, name: master.delete(name), names)
        except (Refusal, UpstreamFailure) as error:
            self._events.publish(MasterMayDiffer(tuple(names)))
            self._log.warning("announce.rollback_deferred", problem=str(error))

    async def _restore_at_master(self, names: Iterable[MailboxName]) -> None:
        """Tell the master again what stands in the list; if it is away, later."""
        names = list(names)
        rows = [entry for name in names if (entry := self._ledger.mailboxes.find(name)) is not None]
        try:
            await self._activate(
                [(row.name, row.raw_location, row.raw_acl) for row in rows if row.is_active]
            )
        except (Refusal, UpstreamFailure) as error:
            self._events.publish(MasterMayDiffer(tuple(names)))
            self._log.warning("announce.rollback_deferred", problem=str(error))

    async def _reserve_rows(self, rows: Iterable[MailboxEntry]) -> None:
        by_place: dict[bytes, list[MailboxName]] = {}
        for entry in rows:
            by_place.setdefault(entry.raw_location, []).append(entry.name)
        for place, names in by_place.items():
            await self._reserve(names, place)

    async def _reserve(self, names: Sequence[MailboxName], place: bytes) -> None:
        try:
            await self._at_master(lambda master, name: master.reserve(name, place), names)
        except Refusal as refusal:
            if refusal.code is not Code.ALREADY_EXISTS:
                raise
            text = f"The murder has this mailbox already: {refusal.text}"
            raise Refusal(Code.ALREADY_EXISTS, text, names=refusal.names) from refusal

    async def _activate(self, rows: Sequence[tuple[MailboxName, bytes, bytes]]) -> None:
        places = {name: (place, raw_acl) for name, place, raw_acl in rows}
        await self._at_master(
            lambda master, name: master.activate(name, *places[name]), [row[0] for row in rows]
        )

    async def _at_master(
        self,
        act: Callable[[Master, MailboxName], Awaitable[None]],
        names: Sequence[MailboxName],
    ) -> None:
        master = self._master
        if master is None:
            return
        names = [name for name in names if not is_quarantined(name)]
        for start in range(0, len(names), AT_ONCE):
            batch = names[start : start + AT_ONCE]
            if len(batch) == 1:
                await act(master, batch[0])
                continue
            outcomes = await asyncio.gather(
                *(act(master, name) for name in batch), return_exceptions=True
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome

    # --- moves to another server (`backend.moves`)

    @asynccontextmanager
    async def locked(self, root: MailboxName, wait_s: float | None = None) -> AsyncIterator[None]:
        """Keep everybody else out of a tree for a moment, in every worker; a crash gives it free. With `wait_s` nobody waits
        for it longer, and not in line behind others. Raises Refusal(IN_USE)."""
        # no two are the same: who lets go of theirs lets go of nobody else's
        intent = Intent(Operation.HELD, ((root, root),), self.process, secrets.token_hex(8))
        async with nullcontext() if wait_s is not None else self._operation(intent, lambda _: []):
            if wait_s is not None:
                await self._write_intent(intent, intent.trees, lambda _: [], wait_s)
            with self.left.noting(intent):
                try:
                    yield
                finally:
                    await self._finish(intent, [])

    async def hold(self, intent: Intent) -> None:
        """Keep everybody else out of its trees until `finish`, in every worker and over a crash; waits for who is in
        one now. May be done twice. Raises Refusal(IN_USE)."""
        if not self.is_held(intent):
            await self._write_intent(intent, intent.trees, lambda _: [])

    def is_held(self, intent: Intent) -> bool:
        octets, held = format_intent(intent), self._ledger.mailboxes.intents()
        return all(held.get(tree) == octets for tree in intent.trees)

    async def finish(self, intent: Intent, changes: Sequence[Change]) -> None:
        """Make these changes, and let others in again. May be done twice."""
        await self._ledger.submit(lambda transaction: let_in(transaction, intent, changes))

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make these changes, under a lock that is held."""
        await self._ledger.commit(changes)

    async def withdraw(self, rows: Sequence[MailboxEntry]) -> None:
        """Tell the master that nobody has these now (RFC 3656 §4.3), children first. Raises Refusal, UpstreamFailure."""
        places = {row.name: row.raw_location for row in rows}
        names = sorted(places, key=len, reverse=True)
        await self._at_master(lambda master, name: master.deactivate(name, places[name]), names)

    async def announce(self, rows: Sequence[MailboxEntry]) -> None:
        """Tell the master that these are here. Raises Refusal, UpstreamFailure."""
        await self._activate([(row.name, row.raw_location, row.raw_acl) for row in rows])

    # --- RENAMEs of what lies on several backends (`backend.renames`)

    async def prepare_rename(self, intent: Intent, wait_s: float = LOCK_WAIT_S) -> None:
        """Keep everybody else out of its trees, over a crash too, and take the new names: `carry_out` or `withdraw` ends
        it. Raises Refusal, UpstreamFailure: then nothing has changed."""
        taken = Taken(intent.moves)
        await self._write_intent(intent, intent.trees, taken.begin, wait_s)
        self.step("intended")
        try:
            await self._reserve_rows(taken.rows)
            self.step("reserved")
            if not self.is_held(intent):  # the master may have taken long
                self._events.publish(MasterMayDiffer(tuple(intent.names)))
                raise Refusal(Code.IN_USE, "This RENAME was ended meanwhile")
            for entry in taken.rows:
                await self.make_room_for(entry.name, "")
        except Exception:
            if self.is_held(intent):  # else somebody else has carried it out, or has withdrawn it
                await self.withdraw_rename(intent)
            raise

    async def advance(self, intent: Intent, stage: Stage, beside: Sequence[Change] = ()) -> Intent:
        """This process takes it on, and writes down how far it has come, with these changes. Raises Refusal(IN_USE) where
        somebody else has."""
        further = replace(intent, stage=stage, process=self.process)
        before, after = format_intent(intent), format_intent(further)

        def propose(transaction: ListTransaction) -> None:
            if any(transaction.intent(tree) != before for tree in intent.trees):
                raise Refusal(Code.IN_USE, "Another worker is ending this RENAME")
            for change in (*beside, *(PutIntent(tree, after) for tree in intent.trees)):
                transaction.apply(change)

        await self._ledger.submit(propose)
        return further

    async def carry_out(self, intent: Intent, *, tells_master: bool = True) -> None:
        """What was prepared, and is decided: store, list, master, which is told later where it is away. May be done twice,
        and again after a crash. Raises what the store raises: then it has to be done again."""
        has_changed = False
        steps = carried_out(self._store, self._ledger.mailboxes, intent, self.step)
        async with aclosing(steps):
            async for changes in steps:
                await self._ledger.commit(changes)
                has_changed = True
        if has_changed:
            for news in news_of_rename(intent.moves):
                self._events.publish(news)
            self.step("listed")
        if not tells_master:
            self._events.publish(MasterMayDiffer(tuple(intent.names)))
        else:
            await self._tell_of_rename(intent)
        self.step("announced")
        await self.finish(intent, [])
        self.step("finished")

    async def _tell_of_rename(self, intent: Intent) -> None:
        names = [old for old, _ in intent.moves]
        new_names = [new for _, new in intent.moves]
        try:
            await self._at_master(lambda master, name: master.delete(name), names)
            self.step("unannounced")
            for start in range(0, len(new_names), AT_ONCE):  # their access lists may be long
                some = map(self._ledger.mailboxes.find, new_names[start : start + AT_ONCE])
                await self.announce([row for row in some if row is not None])
        except (Refusal, UpstreamFailure) as error:
            self._events.publish(MasterMayDiffer(tuple(intent.names)))
            self._log.warning("announce.rollback_deferred", problem=str(error))

    async def withdraw_rename(self, intent: Intent) -> None:
        """What was prepared is not to be: as if it had never begun. May be done twice."""
        taken = self._taken_names(intent)
        try:
            await self._at_master(lambda master, name: master.delete(name), taken)
        except (Refusal, UpstreamFailure) as error:
            self._events.publish(MasterMayDiffer(tuple(taken)))
            self._log.warning("announce.rollback_deferred", problem=str(error))
        self.step("given back")
        await self.finish(intent, [RemoveEntry(name) for name in taken])

    def _taken_names(self, intent: Intent) -> list[MailboxName]:
        """The new names of a rename that are nobody's mailbox yet."""
        find = self._ledger.mailboxes.find
        return [new for _, new in intent.moves if (row := find(new)) and not row.is_active]

    # --- after a crash

    async def repair(self, is_alive: Callable[[str], bool] = is_alive) -> list[Intent]:
        """Settle what dead processes left, and return it; other workers' operations go on. What the store cannot tell of, or
        do, now stays as it is, and its trees locked, until the next start: all others are served."""
        intents = [parse_intent(octets) for octets in self._ledger.mailboxes.intents().values()]
        settled = []
        for intent in dict.fromkeys(intents):
            if is_alive(intent.process) or intent.waits_for_others:
                continue
            mailbox = display(intent.moves[0][0])
            try:
                await self.settle(intent)
            except (Refusal, OSError) as problem:
                self._log.error("mailbox.unreadable", mailbox=mailbox, problem=str(problem))
                continue
            settled.append(intent)
            self._log.warning(
                "announce.repaired", operation=intent.operation.value, mailbox=mailbox
            )
        return settled

    async def settle(self, intent: Intent) -> None:
        """Undo what was begun (a delete: finish it) in store and list. Can be done twice."""
        changes: list[Change] = []
        match intent.operation:
            case Operation.CREATE:
                for _, name in intent.moves:
                    await self._remove_created(name, intent.mailbox_id)
                    changes.append(RemoveEntry(name))
            case Operation.DELETE:
                for _, name in intent.moves:
                    await self._store.delete(name)
                    changes.append(RemoveEntry(name))
                    changes += removed_with(self._ledger.mailboxes, [name])
            case Operation.RENAME:
                for old, new in reversed(intent.moves):
                    # else `new` is what a move keeps; where neither is there, the lock must not stay
                    new_id, old_id = await self._stored_id(new), await self._stored_id(old)
                    if new_id and old_id in ("", new_id):  # the same in both: stopped half-way
                        await self._store.rename(new, old)
                    changes.append(RemoveEntry(new))
            case Operation.SPLIT:
                for _, name in intent.moves:
                    changes.append(await self._settle_split(name, intent.mailbox_id))
            case Operation.JOINT | Operation.PART:
                return await self._settle_joint(intent)
            case Operation.SET_ACL | Operation.HELD | Operation.MOVE | Operation.OWED:
                pass
        await self._finish(intent, changes)

    async def _stored_id(self, name: MailboxName) -> str:
        """What the store has there; "" where nothing."""
        try:
            mailbox = await self._store.open(name, "")
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise  # the store cannot tell now
            return ""
        mailbox.close()
        return mailbox.mailbox_id

    async def _settle_joint(self, intent: Intent) -> None:
        """Unless another worker takes it on at this moment."""
        is_decided = intent.stage is Stage.COMMIT
        try:
            intent = await self.advance(intent, Stage.COMMIT if is_decided else Stage.ABORT)
        except Refusal:
            return
        if is_decided:
            await self.carry_out(intent, tells_master=False)
        else:
            await self.finish(intent, [RemoveEntry(name) for name in self._taken_names(intent)])

    async def _settle_split(self, name: MailboxName, mailbox_id: str) -> Change:
        """Mail that has gone over stays there, with its row; a mailbox that has none was never filled."""
        entry = self._ledger.mailboxes.find(name)
        try:
            mailbox = await self._store.open(name, "")
        except Refusal:
            return RemoveEntry(name)
        has_mail = mailbox.mailbox_id == mailbox_id and (await mailbox.status()).messages > 0
        mailbox.close()
        if has_mail and entry is not None:
            return PutEntry(
                MailboxEntry(name, EntryState.ACTIVE, entry.raw_location, entry.raw_acl)
            )
        await self._remove_created(name, mailbox_id)
        return RemoveEntry(name)

    async def _remove_created(self, name: MailboxName, mailbox_id: str) -> None:
        """Remove the mailbox if it is the one that was to be made: a namesake found in the store holds mail."""
        try:
            mailbox = await self._store.open(name, "")
        except Refusal:
            return
        is_ours = mailbox.mailbox_id == mailbox_id
        mailbox.close()
        if is_ours:
            await self._store.delete(name)

    def is_busy(self, name: MailboxName) -> bool:
        """Whether an operation on this tree is under way: a comparison of lists leaves it alone."""
        return tree_of(name) in self._ledger.mailboxes.intents()
