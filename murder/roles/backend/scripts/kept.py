"""Sieve scripts are kept as Cyrus keeps them: messages of the mailbox `#sieve` below the user's INBOX, the active one with
`\\Flagged`. So they move with the user, count in their quota, and are in what is compared after a move.

A change is one append, durable, and then the older message of that name is removed. Where a crash comes between, the
newest of a name counts, and of two that are active the one that became it last; the next change removes the rest.
What was sent by a Cyrus that still keeps files (before 3.5) lies in a folder of this node and is taken in from there.
"""

import asyncio
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from murder.api.store import FindsByFlag, Mailbox, MailboxStore, NewMessage, TellsModSeq
from murder.durable import replace_file, sync_folder
from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.flag import FlagChange
from murder.model.message import ModSeq, Uid
from murder.model.name import MailboxName, display, inbox_of
from murder.net.turns import Turn
from murder.roles.backend.hierarchy.announce import Announcer
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.maildrop import lock_maildrop
from murder.roles.backend.records.quota import Quotas
from murder.roles.backend.scripts.message import check_script_name, format_script, parse_script

SCRIPTS: Final = b"#sieve"
ACTIVE_FLAG: Final = "\\Flagged"
ACTIVE_FILE: Final = "active"  # in the folder of what was left: the name of the active script
SUFFIXES: Final = (".script", ".bc", ".sieve")
MAX_FILE_NAME: Final = 200  # octets; file systems take 255
MAX_KNOWN_OCTETS: Final = 32 * 1024 * 1024  # of active scripts that are kept in memory, each worker
# a folder that has changed later may change again without a new time of its own
SETTLED_NS: Final = 2_000_000_000
KNOWN_OCTETS: Final = 500  # that one takes beside its text
# messages of such a mailbox that are looked at: an administrator may put anything there
MAX_READ: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may have."""

    scripts: int
    octets: int  # of one script


@dataclass(frozen=True, slots=True)
class Script:
    """One of them; `size` is the script's own. `uids`: its message, behind older ones that a crash has left."""

    name: str
    uid: Uid
    size: int
    is_active: bool
    id: str = ""
    modseq: int = 0
    older: tuple[Uid, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """What was active at a point of a mailbox's life."""

    mailbox_id: str
    modseq: ModSeq
    script: tuple[str, bytes] | None

    @property
    def octets(self) -> int:
        return KNOWN_OCTETS + (len(self.script[1]) if self.script is not None else 0)


class _KnownScripts:
    """The active scripts of those who got mail last, within a bound of memory."""

    def __init__(self) -> None:
        self._known: OrderedDict[MailboxName, _Known] = OrderedDict()
        self._octets = 0

    def get(self, name: MailboxName) -> _Known | None:
        known = self._known.get(name)
        if known is not None:
            self._known.move_to_end(name)
        return known

    def keep(self, name: MailboxName, known: _Known) -> None:
        old = self._known.pop(name, None)
        self._octets += known.octets - (old.octets if old is not None else 0)
        self._known[name] = known
        while self._octets > MAX_KNOWN_OCTETS:
            self._octets -= self._known.popitem(last=False)[1].octets


class IsActive(Refusal):
    """The script that filters the user's mail is not removed."""


def scripts_of(inbox: MailboxName) -> MailboxName:
    """The mailbox of a user's scripts."""
    return MailboxName(inbox + b"." + SCRIPTS)


def file_of(word: str) -> str:
    """As part of a path: nothing in it leads elsewhere. Raises Refusal where no file can be called so."""
    name = quote(word, safe="@ +=,", errors="surrogateescape")
    if len(name) > MAX_FILE_NAME:
        raise Refusal(Code.CANNOT, f"{word[:40]!r} is too long to be a file's name")
    return name if name not in ("", ".", "..") else "%2E"


class Scripts:
    """All users' scripts at this backend, in one worker. `left`: the folder of what came as files, `locks`: of the locks
    that all workers respect. `step` is called between steps (tests stop there)."""

    def __init__(
        self,
        store: MailboxStore,
        mailboxes: Mailboxes,
        announcer: Announcer,
        quotas: Quotas,
        server_name: str,
        left: Path,
        locks: Path,
        limits: Limits,
    ) -> None:
        self._store = store
        # asked once: for each message it would take longer than what it answers
        self._modseqs = store if isinstance(store, TellsModSeq) else None
        self._mailboxes = mailboxes
        self._announcer = announcer
        self._quotas = quotas
        self._server_name = server_name
        self._left = left
        self._left_path = str(left)
        self._locks = locks
        self.limits = limits
        self._empty = (0, 0)  # the folder of what was left, when nothing lay in it
        self._active = _KnownScripts()
        self.step: Callable[[str], None] = lambda _: None

    # --- looking

    async def all(self, user: str) -> Sequence[Script]:
        """In the order of their names. Raises Refusal."""
        mailbox = await self._open(user)
        if mailbox is None:
            return []
        try:
            return await _read(mailbox)
        finally:
            mailbox.close()

    async def read(self, user: str, name: str) -> bytes:
        """One script. Raises Refusal(NONEXISTENT)."""
        mailbox = await self._open(user)
        if mailbox is None:
            raise _no_script(name)
        try:
            script = _named(await _read(mailbox), name)
            return await _script_in(mailbox, script.uid)
        finally:
            mailbox.close()

    async def active(self, user: str) -> tuple[str, bytes] | None:
        """The name and the text of what filters the user's mail; None where nothing does. It is kept until anything changes
        in the mailbox, whoever changes it. Asked for each message that comes."""
        if self._has_left(user):
            async with self._changing(user):
                pass
        name = scripts_of(inbox_of(user))
        if self._mailboxes.find(name) is None:
            return None
        known = self._active.get(name)
        if self._modseqs is not None and known is not None:
            if await self._modseqs.modseq_of(name) == (known.mailbox_id, known.modseq):
                return known.script
        mailbox = await self._store.open(name, user)
        try:
            if known is not None and known.mailbox_id == mailbox.mailbox_id:
                if not await _has_changed(mailbox, known.modseq):
                    return known.script
            modseq = (await mailbox.status()).highest_modseq
            script = await _active_in(mailbox)
            self._active.keep(name, _Known(mailbox.mailbox_id, modseq, script))
            return script
        finally:
            mailbox.close()

    async def check_space(self, user: str, name: str, octets: int) -> None:
        """Whether such a script may come. Raises Refusal: TOO_BIG, LIMIT (one too many), OVER_QUOTA."""
        check_script_name(name)
        self._check_size(octets)
        scripts = await self.all(user)
        self._check_count(scripts, name)
        inbox = self._inbox(user)
        old = next((script.size for script in scripts if script.name == name), None)
        await self._quotas.check_room(
            scripts_of(inbox), octets=max(0, octets - (old or 0)), messages=int(old is None)
        )

    # --- changing: durable on return

    async def put(self, user: str, name: str, script: bytes) -> None:
        """Keep it, in the place of the one with that name; an active one is active again. Raises Refusal."""
        check_script_name(name)
        self._check_size(len(script))
        async with self._changing(user) as mailbox:
            scripts = await _read(mailbox)
            self._check_count(scripts, name)
            await self._replace(mailbox, user, _found(scripts, name), name, script)

    async def activate(self, user: str, name: str) -> None:
        """This one from now on; "": none. Raises Refusal(NONEXISTENT)."""
        if not name and await self._open_as_it_is(user) is None:
            return
        async with self._changing(user) as mailbox:
            scripts = await _read(mailbox)
            chosen = _named(scripts, name) if name else None
            if chosen is not None and not chosen.is_active:
                await mailbox.change_flags([chosen.uid], FlagChange.ADD, frozenset({ACTIVE_FLAG}))
                self.step("flagged")
            await self._unflag(mailbox, chosen)

    async def delete(self, user: str, name: str) -> None:
        """Raises Refusal: NONEXISTENT, IsActive."""
        async with self._changing(user) as mailbox:
            script = _named(await _read(mailbox), name)
            if script.is_active:
                raise IsActive(Code.CANNOT, "The active script cannot be deleted")
            await mailbox.expunge([*script.older, script.uid])

    async def rename(self, user: str, old: str, new: str) -> None:
        """Raises Refusal: NONEXISTENT, ALREADY_EXISTS."""
        check_script_name(new)
        async with self._changing(user) as mailbox:
            scripts = await _read(mailbox)
            script = _named(scripts, old)
            if _found(scripts, new) is not None:
                raise Refusal(Code.ALREADY_EXISTS, f"There is a script {new} already")
            octets = await _script_in(mailbox, script.uid)
            await self._replace(mailbox, user, script, new, octets)

    async def _replace(
        self, mailbox: Mailbox, user: str, old: Script | None, name: str, script: bytes
    ) -> None:
        header = format_script(name, script, user, self._server_name, old.id if old else "")
        flags = frozenset({ACTIVE_FLAG}) if old is not None and old.is_active else frozenset()
        size = len(header) + len(script)
        more = size - old.size if old is not None else size
        incoming = self._store.incoming()
        try:
            await incoming.write(header)
            await incoming.write(script)
            room = self._quotas.room(mailbox.name, octets=max(0, more), messages=int(old is None))
            async with room:
                await mailbox.append([NewMessage(incoming, flags)])
        finally:
            await incoming.close()
        self.step("appended")
        if old is not None:
            await mailbox.expunge([*old.older, old.uid])

    async def _unflag(self, mailbox: Mailbox, but: Script | None) -> None:
        flagged = [
            message.uid
            for message in await mailbox.messages()
            if ACTIVE_FLAG in message.flags and (but is None or message.uid != but.uid)
        ]
        if flagged:
            await mailbox.change_flags(flagged, FlagChange.REMOVE, frozenset({ACTIVE_FLAG}))

    # --- limits

    def _check_size(self, octets: int) -> None:
        if octets > self.limits.octets:
            raise Refusal(Code.TOO_BIG, f"A script may have {self.limits.octets} octets")

    def _check_count(self, scripts: Sequence[Script], name: str) -> None:
        if len(scripts) >= self.limits.scripts and _found(scripts, name) is None:
            raise Refusal(Code.LIMIT, f"A user may have {self.limits.scripts} scripts")

    # --- the mailbox

    def _inbox(self, user: str) -> MailboxName:
        """Raises Refusal where the user's INBOX is not here."""
        inbox = inbox_of(user)
        if self._mailboxes.find(inbox) is None:
            self._mailboxes.check_has_not_left(inbox)
            raise Refusal(Code.NONEXISTENT, "You have no mailbox here, and so no place for scripts")
        return inbox

    async def _open(self, user: str) -> Mailbox | None:
        """With what lay beside; None where there is nothing. Raises Refusal."""
        if self._has_left(user):
            async with self._changing(user):
                pass
        return await self._open_as_it_is(user)

    async def _open_as_it_is(self, user: str) -> Mailbox | None:
        name = scripts_of(self._inbox(user))
        if self._mailboxes.find(name) is None:
            return None
        return await self._store.open(name, user)

    @asynccontextmanager
    async def _changing(self, user: str) -> AsyncIterator[Mailbox]:
        """The mailbox, made where it is not there, for who changes it alone. Raises Refusal, UpstreamFailure."""
        name = scripts_of(self._inbox(user))
        try:
            lock = await lock_maildrop(self._locks, name, lambda: False)
        except Refusal as refusal:
            raise Refusal(
                Code.UNAVAILABLE, "Your scripts are being changed by another session, try again"
            ) from refusal
        try:
            if self._mailboxes.find(name) is None:
                await self._make(name)
            mailbox = await self._store.open(name, user)
            try:
                if self._has_left(user):
                    await self._take_in(mailbox, user)
                yield mailbox
            finally:
                mailbox.close()
        finally:
            lock.release()

    async def _make(self, name: MailboxName) -> None:
        try:
            await self._announcer.create(name, self._mailboxes.default_acl(name))
        except Refusal as refusal:
            if self._mailboxes.find(name) is None:
                if refusal.code is Code.ALREADY_EXISTS:
                    text = "Your scripts are at another server than your INBOX"
                    raise Refusal(Code.UNAVAILABLE, text) from refusal
                raise

    # --- what came as files

    def folder_of(self, user: str) -> Path:
        """Where files of the user's scripts lie until they are taken in. Raises Refusal."""
        return self._left / file_of(user)

    def leave(self, user: str, file: str, octets: bytes) -> None:
        """Lay down a file, durable on return; in a thread. Raises Refusal."""
        folder = self.folder_of(user)
        path = folder / file_of(file)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, octets, prefix="%")
            sync_folder(folder.parent)
        except OSError as error:
            raise Refusal(Code.OVER_QUOTA, f"{path}: {error.strerror}") from error

    def _has_left(self, user: str) -> bool:
        """Asked for each message that comes: a folder in which nothing lies is not looked into again until it changes."""
        try:
            status = os.stat(self._left_path)
            if (status.st_ino, status.st_mtime_ns) == self._empty:
                return False
            now_ns = time.time_ns()
            with os.scandir(self._left_path) as inside:
                is_empty = next(inside, None) is None
        except OSError:
            return False
        if not is_empty:
            return os.path.isdir(f"{self._left_path}/{file_of(user)}")
        if now_ns - status.st_mtime_ns > SETTLED_NS:
            self._empty = (status.st_ino, status.st_mtime_ns)
        return False

    async def take_in_all(self) -> None:
        """At the start: what lies there for users who are here. Never raises for one of them: that is said in the log."""
        if not self._left.is_dir():
            return
        for folder in sorted(self._left.iterdir()):
            user = unquote(folder.name, errors="surrogateescape")
            if folder.is_dir():
                await self.take_in(user)

    async def take_in(self, user: str) -> None:
        """What lies there for a user, if their INBOX is here."""
        if self._mailboxes.find(inbox_of(user)) is None or not self._has_left(user):
            return
        try:
            async with self._changing(user):
                pass
        except (Refusal, UpstreamFailure) as problem:
            log = logger(role="backend")
            log.warning("script.not_taken_in", user=user, problem=str(problem))

    async def _take_in(self, mailbox: Mailbox, user: str) -> None:
        """All of the folder that is not there by its name already, then the folder goes."""
        folder = self.folder_of(user)
        try:
            names, files = await asyncio.to_thread(_files_in, folder)
        except OSError as error:
            raise Refusal(Code.UNAVAILABLE, f"{folder}: {error.strerror}") from error
        scripts = await _read(mailbox)
        has_active = any(script.is_active for script in scripts)
        for name, octets in files:
            if _found(scripts, name) is None:
                await self._replace(mailbox, user, None, name, octets)
        if names and not has_active:
            chosen = _found(await _read(mailbox), names)
            if chosen is not None:
                await mailbox.change_flags([chosen.uid], FlagChange.ADD, frozenset({ACTIVE_FLAG}))
        await asyncio.to_thread(shutil.rmtree, folder, True)
        log = logger(role="backend")
        log.info("script.taken_in", mailbox=display(mailbox.name), scripts=len(files))


def _files_in(folder: Path) -> tuple[str, list[tuple[str, bytes]]]:
    """The active script's name, and all of them with their names."""
    active = ""
    files: list[tuple[str, bytes]] = []
    for path in sorted(folder.iterdir()):
        name = unquote(path.name, errors="replace")
        if path.name == ACTIVE_FILE:
            active = _without_suffix(unquote(path.read_text("utf-8", "replace").strip()))
        elif not path.name.startswith("%") and not name.endswith(".bc"):
            files.append((_without_suffix(name), path.read_bytes()))
    return active, files


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


async def _read(mailbox: Mailbox) -> list[Script]:
    """All scripts, the newest message of each name, in the order of names; one active at most."""
    by_name: dict[str, Script] = {}
    turn = Turn()
    uids = await mailbox.uids()
    for message in await mailbox.messages(uids[-MAX_READ:]):
        if turn.is_over:
            await turn.rest()
        octets = await mailbox.octets(message.uid)
        script = parse_script(octets)
        name = script.name or f"script-{message.uid}"
        older = by_name.get(name)
        by_name[name] = Script(
            name,
            message.uid,
            len(octets) - script.begin,
            ACTIVE_FLAG in message.flags,
            script.id,
            int(message.modseq),
            (*older.older, older.uid) if older else (),
        )
    flagged = [kept for kept in by_name.values() if kept.is_active]
    last = max(flagged, key=lambda kept: (kept.modseq, kept.uid), default=None)
    return [
        replace(kept, is_active=False) if kept.is_active and kept is not last else kept
        for _, kept in sorted(by_name.items())
    ]


async def _has_changed(mailbox: Mailbox, since: ModSeq) -> bool:
    """Anything at all: mod-sequences go up with every change."""
    return (await mailbox.changes(since)).highest_modseq != since


async def _active_in(mailbox: Mailbox) -> tuple[str, bytes] | None:
    if isinstance(mailbox, FindsByFlag) and not await mailbox.find_by_flag(ACTIVE_FLAG, most=1):
        return None
    for script in await _read(mailbox):
        if script.is_active:
            return script.name, await _script_in(mailbox, script.uid)
    return None


async def _script_in(mailbox: Mailbox, uid: Uid) -> bytes:
    octets = await mailbox.octets(uid)
    return bytes(octets[parse_script(octets).begin :])


def _found(scripts: Sequence[Script], name: str) -> Script | None:
    return next((script for script in scripts if script.name == name), None)


def _named(scripts: Sequence[Script], name: str) -> Script:
    script = _found(scripts, name)
    if script is None:
        raise _no_script(name)
    return script


def _no_script(name: str) -> Refusal:
    return Refusal(Code.NONEXISTENT, f"There is no script {name}")
