"""Each store beside the one in memory, through random changes and restarts: they never tell different things.

`STATE_EXAMPLES` is how many such stories are told.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from murder.api import FindsByFlag, FlagChange, Mailbox, MailboxStore, NewMessage
from murder.errors import Code, Refusal
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName
from plugins.store_maildir.store import MaildirStore
from plugins.store_maildir.store import Settings as MaildirSettings
from plugins.store_memory import MemoryStore
from plugins.store_spool.store import Settings, SpoolStore

ALL = (b"user.ana", b"user.ana.a", b"user.ana.a.b", b"user.bob", b"shared.x")
NAMES = st.sampled_from([MailboxName(name) for name in ALL])
READERS = st.sampled_from(["ana", "bob"])
FLAGS = st.frozensets(
    st.sampled_from(["\\Seen", "\\Deleted", "\\Flagged", "$Word", "$WORD", "other"])
)
# which of a mailbox's messages: by place, so that most examples hit some
PLACES = st.lists(st.integers(0, 9), min_size=1, max_size=4)
BODIES = st.lists(
    st.sampled_from(
        [b"", b"Subject: x\r\n\r\nhello\r\n", b"bare\nline\r\nends\r", b"large\r\n" * 300]
    ),
    min_size=1,
    max_size=3,
)
PATIENCE_S = 20.0


def make(kind: str, folder: Path) -> MailboxStore:
    if kind == "maildir":
        return MaildirStore(MaildirSettings(), folder)
    return SpoolStore(Settings(inline_bytes=500), folder)


async def outcome(work: Coroutine[Any, Any, Any]) -> Any:
    """What it gave, or the code with which it was refused."""
    try:
        return await work
    except Refusal as refusal:
        return refusal.code


async def append(
    store: MailboxStore, name: MailboxName, reader: str, bodies: list[bytes], flags: frozenset[str]
) -> Any:
    incomings = []
    for body in bodies:
        incoming = store.incoming()
        await incoming.write(body)
        incomings.append(incoming)
    box = await store.open(name, reader)
    try:
        return list(await box.append([NewMessage(one, flags) for one in incomings]))
    finally:
        box.close()
        for incoming in incomings:
            await incoming.close()


async def told_of(box: Mailbox) -> dict[str, Any]:
    """All that a mailbox tells, without what each store chooses for itself."""
    status = await box.status()
    rows = await box.messages()
    digests = [hashlib.sha256(await box.octets(row.uid)).hexdigest()[:8] for row in rows]
    assert isinstance(box, FindsByFlag)
    return {
        "status": (status.messages, status.unseen, status.deleted, status.size, status.uid_next),
        "recent": status.recent,
        "uids": list(await box.uids()),
        "rows": [(row.uid, row.flags, row.size) for row in rows],
        "octets": digests,
        "unseen": list(await box.find_by_flag("\\Seen", present=False)),
    }


class Beside(RuleBasedStateMachine):
    """`kind` is set by the test."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="murder-state-"))
        self.runner = asyncio.Runner()
        self.model = MemoryStore()
        self.store = make(self.kind, self.folder)
        self.do(self.store.start())
        self.marks: dict[MailboxName, list[tuple[ModSeq, ModSeq, set[int]]]] = {}
        self.both("create", MailboxName(ALL[0]))

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                return await work

        return self.runner.run(bounded())

    def both(self, method: str, *arguments: Any) -> Any:
        """The same of both stores; what they gave, if it is the same kind of thing."""
        if method == "create":
            arguments = (*arguments, "default")
        theirs = self.do(outcome(getattr(self.model, method)(*arguments)))
        ours = self.do(outcome(getattr(self.store, method)(*arguments)))
        assert isinstance(ours, Code) == isinstance(theirs, Code), (method, arguments, ours, theirs)
        if isinstance(ours, Code):
            assert ours is theirs
        return ours

    @property
    def names(self) -> list[MailboxName]:
        return [one.name for one in self.do(self.model.mailboxes())]

    def in_both(self, name: MailboxName, reader: str, method: str, *arguments: Any) -> Any:
        """The same of one mailbox in both."""

        async def ask(store: MailboxStore, changed: tuple[Any, ...]) -> Any:
            box = await store.open(name, reader)
            try:
                return await getattr(box, method)(*changed)
            finally:
                box.close()

        theirs = self.do(outcome(ask(self.model, arguments)))
        ours = self.do(outcome(ask(self.store, arguments)))
        return theirs, ours

    def some(self, name: MailboxName, places: list[int]) -> list[Uid]:
        uids = self.do(self._uids(name))
        return sorted({uids[place] for place in places if place < len(uids)})

    async def _uids(self, name: MailboxName) -> list[Uid]:
        return list(await (await self.model.open(name, "ana")).uids())

    # --- changes

    @rule(name=NAMES)
    def create(self, name: MailboxName) -> None:
        self.both("create", name)

    @rule(name=NAMES)
    def delete(self, name: MailboxName) -> None:
        self.both("delete", name)
        self.marks.pop(name, None)

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: MailboxName, new: MailboxName) -> None:
        # whose mail it is decides whose \Seen is the owner's
        if old == new or owner(old) != owner(new):
            return
        if not isinstance(self.both("rename", old, new), Code) and old in self.marks:
            self.marks[new] = self.marks.pop(old)

    @rule(name=NAMES, reader=READERS, bodies=BODIES, flags=FLAGS)
    def append(
        self, name: MailboxName, reader: str, bodies: list[bytes], flags: frozenset[str]
    ) -> None:
        flags = frozenset({flag.lower(): flag for flag in sorted(flags)}.values())
        theirs = self.do(outcome(append(self.model, name, reader, bodies, flags)))
        assert self.do(outcome(append(self.store, name, reader, bodies, flags))) == theirs

    @rule(
        name=NAMES, reader=READERS, places=PLACES, change=st.sampled_from(FlagChange), flags=FLAGS
    )
    def store_flags(
        self,
        name: MailboxName,
        reader: str,
        places: list[int],
        change: FlagChange,
        flags: frozenset[str],
    ) -> None:
        if name in self.names:
            flags = frozenset({flag.lower(): flag for flag in sorted(flags)}.values())
            uids = self.some(name, places)
            theirs, ours = self.in_both(name, reader, "change_flags", uids, change, flags)
            assert [lowered(row.flags) for row in ours.messages] == [
                lowered(row.flags) for row in theirs.messages
            ]

    @rule(name=NAMES, places=PLACES)
    def expunge(self, name: MailboxName, places: list[int]) -> None:
        if name in self.names:
            theirs, ours = self.in_both(name, "ana", "expunge", self.some(name, places))
            assert list(ours) == list(theirs)

    @rule(name=NAMES, into=NAMES, places=PLACES, reader=READERS, moving=st.booleans())
    def carry(
        self, name: MailboxName, into: MailboxName, places: list[int], reader: str, moving: bool
    ) -> None:
        if not {name, into} <= set(self.names) or (moving and name == into):
            return
        uids = self.some(name, places)

        async def carried(store: MailboxStore) -> dict[Uid, Uid]:
            one, other = await store.open(name, reader), await store.open(into, reader)
            try:
                return dict(await (one.move if moving else one.copy)(uids, other))
            finally:
                one.close()
                other.close()

        assert self.do(carried(self.store)) == self.do(carried(self.model))

    @rule(name=NAMES, reader=READERS)
    def claim_recent(self, name: MailboxName, reader: str) -> None:
        if name in self.names:
            theirs, ours = self.in_both(name, reader, "claim_recent")
            assert sorted(ours) == sorted(theirs)

    @rule(name=NAMES, user=READERS, subscribed=st.booleans())
    def subscribe(self, name: MailboxName, user: str, subscribed: bool) -> None:
        self.both("subscribe", user, name, subscribed)
        assert set(self.do(self.store.subscriptions(user))) == set(
            self.do(self.model.subscriptions(user))
        )

    @rule(name=NAMES)
    def mark(self, name: MailboxName) -> None:
        """Remember this moment of a mailbox: `changes` is asked for it later."""
        if name in self.names:
            theirs, ours = self.in_both(name, "ana", "status")
            known = set(self.do(self._uids(name)))
            self.marks.setdefault(name, []).append(
                (theirs.highest_modseq, ours.highest_modseq, known)
            )

    @precondition(lambda self: self.marks)
    @rule()
    def changes(self) -> None:
        for name, marks in self.marks.items():
            for theirs_at, ours_at, known in marks:
                theirs, _ = self.in_both(name, "ana", "changes", theirs_at)
                _, ours = self.in_both(name, "ana", "changes", ours_at)
                assert [row.uid for row in ours.changed] == [row.uid for row in theirs.changed]
                assert ours.complete
                assert known & set(ours.vanished) == known & set(theirs.vanished)

    @rule()
    def restart(self) -> None:
        self.do(self.store.stop())
        self.store = make(self.kind, self.folder)
        self.do(self.store.start())

    # --- what always holds

    @invariant()
    def they_tell_the_same(self) -> None:
        names = self.names
        assert {one.name for one in self.do(self.store.mailboxes())} == set(names)
        for name in names:
            for reader in ("ana", "bob"):
                theirs, ours = self.do(self._told(name, reader))
                theirs["rows"] = [
                    (uid, lowered(flags), size) for uid, flags, size in theirs["rows"]
                ]
                ours["rows"] = [(uid, lowered(flags), size) for uid, flags, size in ours["rows"]]
                assert ours == theirs, (name, reader)

    async def _told(self, name: MailboxName, reader: str) -> list[dict[str, Any]]:
        found = []
        for store in (self.model, self.store):
            box = await store.open(name, reader)
            try:
                found.append(await told_of(box))
            finally:
                box.close()
        return found

    def teardown(self) -> None:
        self.do(self.store.stop())
        self.runner.close()
        shutil.rmtree(self.folder)


def owner(name: MailboxName) -> bytes:
    return b".".join(name.split(b".")[:2])


def lowered(flags: frozenset[str]) -> list[str]:
    """How a keyword is spelled is its mailbox's choice."""
    return sorted(flag.lower() for flag in flags)


@pytest.mark.parametrize("kind", ["spool", "maildir"])
def test_a_store_tells_what_the_one_in_memory_tells(kind: str) -> None:
    machine = type(f"Beside_{kind}", (Beside,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("STATE_EXAMPLES", "8")),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
