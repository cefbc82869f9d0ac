"""A user, or a mailbox, that a Cyrus backend sends by XFER: the target's side, in Cyrus' replication protocol.

The source sends everything twice while people work, tells the master that nobody has the mailboxes, locks them, sends the
last differences, **removes them there**, and only then tells us to show them (MUPDATEPUSH). So what was answered OK is
durable, and a connection that breaks off removes nothing here: `Mover` looks at the master for who has them.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from murder.api import CarriedMessage
from murder.api.disk import disk_error
from murder.api.turns import behind
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.carried import Portrait
from murder.model.message import ModSeq, Uid
from murder.model.name import (
    MailboxName,
    check_new_name,
    display,
    inbox_of,
    is_of_tree,
    owner_of,
)
from murder.net.turns import SHORT_TURN_S, Turn, in_turns, let_go_of
from murder.roles.backend.moves.alone import ADDING_S, alone_with
from murder.roles.backend.moves.arriving import check_may_come, taking
from murder.roles.backend.moves.batches import (
    BATCH_MESSAGES,
    BATCH_OCTETS,
    close_all,
    with_sizes,
)
from murder.roles.backend.moves.cyrus_values import (
    EXPUNGED,
    RESOURCES,
    Arrived,
    Told,
    called,
    entries_of,
    guid_of,
    mapping_of,
    message_of,
    missing_of,
    name_in,
    number_of,
    octets_of,
    text_of,
    uid_in,
    uids_of,
    user_in,
    values_of,
    word_of,
)
from murder.roles.backend.moves.ending import (
    abort,
    alone_in,
    check_is_nobodys,
    commit,
    id_of,
    is_nobodys,
)
from murder.roles.backend.moves.journal import ARRIVING, CYRUS, Journal, Move, Side, State
from murder.roles.backend.moves.staged import Staged
from murder.roles.backend.records.annotations import check_note, note_with
from murder.roles.backend.records.quota import quota_key
from murder.roles.backend.scripts.kept import ACTIVE_FILE, file_of
from murder.roles.backend.shared import Backend
from murder.wire.dlist import Value, format_value
from murder.wire.nodes.carry import format_name
from murder.wire.nodes.carry_words import MAX_SUBSCRIPTIONS, checked_acl, checked_portrait

MAX_SCRIPT_OCTETS: Final = 1024 * 1024  # Cyrus' `sieve_maxscriptsize` is 32 KiB
MAX_SCRIPTS: Final = 1000


class FromCyrus:
    """One user (or shared mailbox) at a time, over one connection. `server` is where it comes from."""

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        server: str,
        process: str,
        step: Callable[[str], None],
        leave: Callable[[Move], Awaitable[None]],
    ) -> None:
        """`leave`: as `LooseEnds.leave`."""
        self._backend = backend
        self._leave = leave
        self._store = taking(backend)
        self._journal = journal
        self._server = server
        self._process = process
        self._step = step
        self._log = logger(role="backend")
        self.staged = Staged(journal.folder)
        self._forget()
        self._applied: Mapping[str, Callable[[Value], Awaitable[None]]] = {
            "MESSAGE": self._message,
            "RESERVE": self._reserve,
            "MAILBOX": self._mailbox,
            "LOCAL_MAILBOX": self._mailbox,
            "UNMAILBOX": self._unmailbox,
            "LOCAL_UNMAILBOX": self._unmailbox,
            "RENAME": self._rename,
            "LOCAL_RENAME": self._rename,
            "EXPUNGE": self._expunge,
            "QUOTA": self._quota,
            "UNQUOTA": self._unquota,
            "SUB": self._sub,
            "UNSUB": self._unsub,
            "SEEN": self._seen,
            "ANNOTATION": self._annotation,
            "UNANNOTATION": self._unannotation,
            "SIEVE": self._sieve,
            "UNSIEVE": self._unsieve,
            "ACTIVATE_SIEVE": self._activate_sieve,
            "UNACTIVATE_SIEVE": self._activate_sieve,
        }

    def _forget(self) -> None:
        self._move: Move | None = None
        self._boxes: dict[MailboxName, Arrived] = {}
        self._places: dict[str, tuple[MailboxName, int]] = {}  # digest -> a message with it
        self._quotas: dict[MailboxName, dict[str, int]] = {}
        self._quotas_told: dict[MailboxName, Told] = {}
        self._subscriptions: dict[str, set[MailboxName]] = {}
        self._answers: list[bytes] = []
        self.staged.clear()

    # --- what the source asks

    async def get(self, what: str, value: Value) -> list[bytes]:
        """SYNCGET: what is here of what it means to send. Raises Refusal."""
        match what:
            case "USER":
                await self._begin(inbox_of(word_of(value)))
                lines = [b"* MAILBOX " + format_value(box.told) for box in self._boxes.values()]
                lines += [b"* QUOTA " + format_value(quota) for quota in self._quotas_told.values()]
                lines += [
                    b"* LSUB " + format_value(sorted(names))
                    for names in self._subscriptions.values()
                    if names
                ]
                return lines
            case "MAILBOXES":
                names = [name_in(item) for item in values_of(value)]
                if not names:
                    raise BadSyntax("no mailbox is named")
                await self._begin(names[0])
                boxes = [self._boxes[name] for name in names if name in self._boxes]
                return [b"* MAILBOX " + format_value(box.told) for box in boxes]
            case "ANNOTATION":
                return []  # they have come with their mailboxes. A Cyrus 3.6.1 no longer finds its own now, and would remove
                # those that we told of
            case _:
                raise Refusal(Code.CANNOT, f"SYNCGET {what} is not answered here")

    async def apply(self, what: str, value: Value) -> list[bytes]:
        """SYNCAPPLY: done and durable on return. Raises Refusal."""
        act = self._applied.get(what)
        if act is None:
            raise Refusal(Code.CANNOT, f"SYNCAPPLY {what} is not understood here")
        self._answers = []
        await act(value)
        if what not in ("MESSAGE", "RESERVE"):
            await self._write_down()
        self._step(what.lower())
        return self._answers

    async def push(self, external: bytes) -> None:
        """MUPDATEPUSH: it is ours now, and only forward. Raises Refusal where nothing of that name has come, or the disk
        does not take it: it is then kept, and shown by `murder ctl move resume`."""
        move = self._holder_of(external)
        if move.state is State.COPYING:
            await self._check_all()
        if move.state is State.DONE:
            return
        try:
            async with alone_with(self._journal, move, ADDING_S) as now:
                if move.state is State.COPYING:
                    self._move = move = now = await self._prepared(move)
                await commit(self._backend, self._journal, now, self._step, is_alone=True)
        except (Refusal, UpstreamFailure, OSError) as problem:
            if move.state is State.COPYING:
                raise
            # the mover goes on with it
            self._log.warning("move.interrupted", move=move.id, problem=str(problem))
            self._move = self._journal.find(Side.IN, move.id) or move
            return
        self._move = self._journal.find(Side.IN, move.id) or move
        self._log.info(
            "move.taken", move=move.id, mailbox=display(move.root), messages=move.messages
        )

    async def _prepared(self, move: Move) -> Move:
        """Told to show it. Raises Refusal."""
        try:
            prepared = await self._journal.save(move, only_from=ARRIVING, state=State.PREPARED)
        except OSError as error:
            raise disk_error(error, self._journal.folder) from error
        self._step("prepared")
        return prepared

    async def told_no(self, problem: str) -> None:
        """The source has been refused something; it gives up, and says no more than that."""
        move = self._move
        self._log.warning(
            "move.interrupted",
            move=move.id if move else "",
            mailbox=display(move.root) if move else "",
            problem=problem,
        )
        if move is not None:
            with suppress(Refusal, OSError):  # others have ended it meanwhile, or the disk is full
                self._move = await self._journal.save(move, only_from={move.state}, problem=problem)

    async def ended(self) -> None:
        """It is over; what has come and was not shown is looked after by the mover."""
        if self._move is not None and self._move.state is State.COPYING:
            await self._leave(self._move)
        self._forget()

    def _holder_of(self, external: bytes) -> Move:
        """The move with which a mailbox has come, over this connection or an earlier one."""
        moves = reversed(list(self._journal.moves())) if self._move is None else [self._move]
        for move in moves:
            is_ours = move.side is Side.IN and move.by == CYRUS and move.state is not State.ABORTED
            if is_ours and any(external in called(name) for name in move.names):
                return move
        raise Refusal(Code.NONEXISTENT, f"{display(external)} was not received")

    # --- beginning

    @property
    def _now(self) -> Move:
        if self._move is None:
            raise Refusal(Code.CANNOT, "Nothing was begun")
        return self._move

    async def _begin(self, root: MailboxName) -> None:
        move = self._move
        if move and move.root == root and move.state in (State.COPYING, State.PREPARED):
            return
        self._forget()
        check_new_name(root)
        backend = self._backend
        await check_may_come(backend, root, "")
        async with backend.announcer.locked(root):
            if backend.mailboxes.find(root) is not None:
                raise Refusal(Code.ALREADY_EXISTS, f"{display(root)} is here already")
            await self._drop_older(root)
            self._move = await self._journal.save(
                Move(
                    secrets.token_hex(6),
                    Side.IN,
                    root,
                    self._server,
                    backend.config.partition,
                    process=self._process,
                    by=CYRUS,
                    started_at=time.time(),
                )
            )
        await self._write_down()
        self._log.info(
            "move.begun",
            move=self._move.id,
            mailbox=display(root),
            target=backend.server_name,
            user=CYRUS,
        )

    async def _drop_older(self, root: MailboxName) -> None:
        """What an earlier try has left: the source has all of it, since it sends it. The tree is locked."""
        for move in self._journal.moves():
            if move.side is Side.IN and move.root == root and move.state is State.COPYING:
                if move.by != CYRUS:
                    raise Refusal(Code.IN_USE, f"The move {move.id} brings it already")
                await abort(self._backend, self._journal, move, is_alone=True)

    # --- mailboxes and messages

    async def _message(self, _: Value) -> None:
        """The octets have been staged as they came."""

    async def _reserve(self, value: Value) -> None:
        """Which messages are lacking here."""
        guids = values_of(mapping_of(value).get("GUID"))
        self._answers = await behind(missing_of, guids, self._places)

    def _member(self, fields: Told, key: str = "MBOXNAME") -> MailboxName:
        """A name of what moves: nothing else is touched."""
        name = name_in(fields.get(key))
        root = self._now.root
        if not is_of_tree(name, root):
            raise Refusal(Code.CANNOT, f"{display(name)} is no part of {display(root)}")
        return name

    async def _mailbox(self, value: Value) -> None:
        fields = mapping_of(value)
        if "i" in text_of(fields, "MBOXTYPE", "").split(","):
            return  # a name between others, with nothing in it
        name = self._member(fields)
        records = values_of(fields.pop("RECORD", []))
        annotations = fields.pop("ANNOTATIONS", [])
        box = self._boxes.get(name)
        if box is None or box.identity != Arrived(name, fields).identity:
            box = await self._hold(name, fields)
        box.told = fields
        box.annotations = {}
        for annotation in values_of(annotations):
            entry = mapping_of(annotation)
            self._note(box, entry)
        checked_acl(octets_of(fields.get("ACL")))
        expunged = await self._records(box, records)
        await let_go_of(records)
        await self._complete(box, expunged)

    def _note(self, box: Arrived, entry: Told) -> None:
        """An annotation, where all of the mailbox's fit into what is kept of one."""
        box.annotations[text_of(entry, "ENTRY"), user_in(entry, "USERID")] = octets_of(
            entry.get("VALUE")
        )
        check_note(*note_with(box.name, entries_of(box)))

    async def _hold(self, name: MailboxName, fields: Told) -> Arrived:
        box = Arrived(name, fields)
        if name not in self._now.names:
            self._move = await self._journal.save(self._now, names=(*self._now.names, name))
        if not is_nobodys(self._backend, name) or await id_of(self._backend, name) is not None:
            async with alone_in(self._backend, self._now):
                check_is_nobodys(self._backend, name)
                await self._backend.announcer.make_room_for(name, "", self._now.id)
                if name in self._boxes:
                    await self._backend.store.delete(name)
        await self._store.hold(name, self._now.partition, box.identity)
        self._boxes[name] = box
        return box

    async def _complete(self, box: Arrived, expunged: Sequence[tuple[ModSeq, Uid]]) -> None:
        portrait = Portrait(
            box.identity,
            Uid(number_of(box.told, "LAST_UID") + 1),
            ModSeq(number_of(box.told, "HIGHESTMODSEQ")),
            sorted(expunged),
            box.seen,
        )
        check_is_nobodys(self._backend, box.name)
        await self._store.complete(box.name, checked_portrait(portrait))

    async def _records(self, box: Arrived, records: Sequence[Value]) -> list[tuple[ModSeq, Uid]]:
        """Take in messages, in batches; what has been expunged is returned."""
        expunged: list[tuple[ModSeq, Uid]] = []
        batch: list[tuple[CarriedMessage, str]] = []
        held = 0
        async for given in in_turns(records, Turn(SHORT_TURN_S)):
            record = mapping_of(given)
            message, digest = message_of(record), guid_of(record)
            if EXPUNGED in message.flags:
                expunged.append((message.modseq, message.uid))
                box.digests.pop(message.uid, None)
                continue  # its octets stay staged: another mailbox may have them too
            is_here = message.uid in box.digests
            octets = None if is_here else await self._octets(digest, box, message.uid)
            batch.append((CarriedMessage(message, await self._incoming(octets)), digest))
            held += len(octets or b"")
            if held >= BATCH_OCTETS or len(batch) >= BATCH_MESSAGES:
                await self._receive(box, batch)
                batch, held = [], 0
        await self._receive(box, batch)
        return expunged

    async def _incoming(self, octets: bytes | memoryview | None) -> Any:
        if octets is None:
            return None
        incoming = self._backend.store.incoming()
        await incoming.write(octets)
        return incoming

    async def _octets(self, digest: str, box: Arrived, uid: int) -> bytes | memoryview:
        """As they have just come, or from another mailbox that has the same message."""
        octets = self.staged.read(digest)
        if octets is not None:
            return octets
        place = self._places.get(digest)
        if place is None:
            raise Refusal(
                Code.CANNOT, f"The octets of message {uid} of {display(box.name)} were not received"
            )
        mailbox = await self._backend.store.open(place[0], "")
        try:
            return bytes(await mailbox.octets(Uid(place[1])))
        finally:
            mailbox.close()

    async def _receive(self, box: Arrived, batch: Sequence[tuple[CarriedMessage, str]]) -> None:
        if not batch:
            return
        try:
            check_is_nobodys(self._backend, box.name)
            await self._store.receive(box.name, await with_sizes([message for message, _ in batch]))
        finally:
            await close_all([message for message, _ in batch])
        new = [message.message.size for message, _ in batch if message.incoming is not None]
        for message, digest in batch:
            box.digests[message.message.uid] = digest
            self._places.setdefault(digest, (box.name, message.message.uid))
            self.staged.used(digest)
        move = self._now
        self._move = replace(move, messages=move.messages + len(new), octets=move.octets + sum(new))

    async def _expunge(self, value: Value) -> None:
        fields = mapping_of(value)
        box = self._boxes.get(self._member(fields))
        if box is None:
            return
        modseq = ModSeq(number_of(box.told, "HIGHESTMODSEQ"))
        uids = [uid_in(given) for given in values_of(fields.get("UID"))]
        for uid in uids:
            box.digests.pop(uid, None)
        await self._complete(box, [(modseq, uid) for uid in uids])

    async def _unmailbox(self, value: Value) -> None:
        name = self._member({"MBOXNAME": value})
        self._boxes.pop(name, None)
        self._places = {digest: place for digest, place in self._places.items() if place[0] != name}
        async with alone_in(self._backend, self._now):
            if is_nobodys(self._backend, name):
                await self._backend.store.delete(name)
        names = tuple(other for other in self._now.names if other != name)
        self._move = await self._journal.save(self._now, names=names)

    async def _rename(self, value: Value) -> None:
        fields = mapping_of(value)
        old, new = self._member(fields, "OLDMBOXNAME"), self._member(fields, "NEWMBOXNAME")
        box = self._boxes.pop(old, None)
        if box is None:
            raise Refusal(Code.NONEXISTENT, f"{display(old)} was not received")
        if old != new:
            self._move = await self._journal.save(self._now, names=(*self._now.names, new))
            async with alone_in(self._backend, self._now):
                check_is_nobodys(self._backend, old)
                check_is_nobodys(self._backend, new)
                await self._backend.store.rename(old, new)
            names = tuple(name for name in self._now.names if name != old)
            self._move = await self._journal.save(self._now, names=names)
        box.name = new
        box.told["MBOXNAME"] = bytes(new)
        if "PARTITION" in fields:
            box.told["PARTITION"] = fields["PARTITION"]
        if "UIDVALIDITY" in fields and number_of(fields, "UIDVALIDITY"):
            box.told["UIDVALIDITY"] = fields["UIDVALIDITY"]
        self._boxes[new] = box
        self._places = {
            digest: (new if place[0] == old else place[0], place[1])
            for digest, place in self._places.items()
        }

    # --- what stands beside them

    async def _quota(self, value: Value) -> None:
        fields = mapping_of(value)
        root = self._member(fields, "ROOT")
        limits = {
            resource.value: number_of(fields, word)
            for word, resource in RESOURCES.items()
            if word in fields and number_of(fields, word) >= 0
        }
        self._quotas[root] = limits
        self._quotas_told[root] = fields

    async def _unquota(self, value: Value) -> None:
        root = self._member({"MBOXNAME": value})
        self._quotas.pop(root, None)
        self._quotas_told.pop(root, None)

    async def _sub(self, value: Value) -> None:
        fields = mapping_of(value)
        names = self._subscriptions.setdefault(self._owner(fields), set())
        names.add(name_in(fields.get("MBOXNAME")))
        if len(names) > MAX_SUBSCRIPTIONS:
            raise Refusal(Code.LIMIT, f"There are more than {MAX_SUBSCRIPTIONS} subscriptions")

    async def _unsub(self, value: Value) -> None:
        fields = mapping_of(value)
        self._subscriptions.get(self._owner(fields), set()).discard(name_in(fields.get("MBOXNAME")))

    def _owner(self, fields: Told) -> str:
        user, owner = text_of(fields, "USERID"), owner_of(self._now.root)
        if user != owner:
            raise Refusal(Code.CANNOT, f"{user} is not who moves")
        return user

    async def _seen(self, value: Value) -> None:
        """What a reader has seen of one mailbox. The owner's stands with the messages; of mailboxes that do not move
        with the user nothing can be kept here."""
        fields = mapping_of(value)
        user = user_in(fields, "USERID")
        for box in self._boxes.values():
            if text_of(box.told, "UNIQUEID") == text_of(fields, "UNIQUEID"):
                if owner_of(box.name) != user:
                    seen = text_of(fields, "SEENUIDS", "")
                    box.seen[user] = await behind(uids_of, seen, box.digests)
                    await self._complete(box, [])
                return

    async def _annotation(self, value: Value) -> None:
        fields = mapping_of(value)
        box = self._boxes.get(name_in(fields.get("MBOXNAME")))
        if box is not None:
            self._note(box, fields)

    async def _unannotation(self, value: Value) -> None:
        fields = mapping_of(value)
        box = self._boxes.get(name_in(fields.get("MBOXNAME")))
        if box is not None:
            box.annotations.pop((text_of(fields, "ENTRY"), text_of(fields, "USERID", "")), None)

    async def _sieve(self, value: Value) -> None:
        """A script of a Cyrus that keeps them as files: it lies beside until the user is here, and is a message then."""
        fields = mapping_of(value)
        user, script = self._owner(fields), octets_of(fields.get("CONTENT"))
        folder = self._backend.scripts.folder_of(user)
        count = len(os.listdir(folder)) if folder.is_dir() else 0
        if len(script) > MAX_SCRIPT_OCTETS or count >= MAX_SCRIPTS:
            raise Refusal(
                Code.LIMIT,
                f"{MAX_SCRIPTS} Sieve scripts of {MAX_SCRIPT_OCTETS} octets are kept of one user",
            )
        await asyncio.to_thread(
            self._backend.scripts.leave, user, text_of(fields, "FILENAME"), script
        )

    async def _unsieve(self, value: Value) -> None:
        fields = mapping_of(value)
        folder = self._backend.scripts.folder_of(self._owner(fields))
        (folder / file_of(text_of(fields, "FILENAME"))).unlink(missing_ok=True)

    async def _activate_sieve(self, value: Value) -> None:
        fields = mapping_of(value)
        name = file_of(text_of(fields, "FILENAME", "")) + "\n"
        await asyncio.to_thread(
            self._backend.scripts.leave, self._owner(fields), ACTIVE_FILE, name.encode()
        )

    # --- the end

    async def _write_down(self) -> None:
        """All that is to be shown, beside the store's part: durable on return."""
        move = self._move
        if move is None or move.state is not State.COPYING:
            return
        notes: dict[str, str] = {}
        for box in self._boxes.values():
            key, octets = note_with(box.name, entries_of(box))
            if octets:
                notes[key] = octets.decode("latin-1")
            limits = self._quotas.get(box.name)
            if limits:
                notes[quota_key(box.name)] = json.dumps(limits)
        owner = owner_of(move.root) or ""
        words = {
            "rows": [
                [format_name(name), octets_of(box.told.get("ACL")).decode("latin-1")]
                for name, box in sorted(self._boxes.items())
            ],
            "notes": notes,
            "subscriptions": sorted(
                format_name(name) for name in self._subscriptions.get(owner, ())
            ),
        }
        self._move = await self._journal.save(move, prepared=json.dumps(words).encode())

    async def _check_all(self) -> None:
        """Whether the store has the messages that have come, no more and no fewer; said in the log, for there is no way
        back."""
        for box in self._boxes.values():
            mailbox = await self._backend.store.open(box.name, "")
            try:
                uids = await mailbox.uids()
            finally:
                mailbox.close()
            if list(uids) != sorted(box.digests):
                self._log.error(
                    "move.differs",
                    move=self._now.id,
                    mailbox=display(box.name),
                    problem=f"{len(uids)} messages are here, {len(box.digests)} were sent",
                )
