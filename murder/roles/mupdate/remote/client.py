"""The master as a backend uses it: reserve, activate, deactivate, delete, find, list (RFC 3656 §4).

One lazy connection, kept; commands of many tasks are pipelined on it. A command that was lost with its connection is sent
once more: each may happen twice without harm.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.entry import EntryState, MailboxEntry
from murder.model.name import MAX_NAME_OCTETS, MailboxName
from murder.roles.mupdate.remote.link import Link, Target
from murder.roles.mupdate.remote.mark import MAX_DIGITS
from murder.roles.mupdate.remote.masters import Masters
from murder.session.mupdate_client import Event, Rows, is_answer
from murder.wire.mupdate import LISTS, UNAVAILABLE, Banner, Kind, Response, Verb

MAX_LIST_ROWS: Final = 10_000_000  # of a LIST: several times the largest murder known
MAX_LIST_OCTETS: Final = 1 << 30  # and of that; a million rows have 120 MiB
MAX_ROWS: Final = 16  # of any other answer: a FIND has one


class _UnknownError(Exception):
    """The master that is connected now has no such command."""


class _Pending:
    """One command in flight: what has come for it, and whether something came lately."""

    __slots__ = (
        "answer",
        "entries",
        "future",
        "has_acls",
        "octets_left",
        "progress",
        "rows_left",
        "tag",
    )

    def __init__(
        self, tag: bytes, future: "asyncio.Future[None]", verb: Verb, has_acls: bool
    ) -> None:
        is_list = verb in LISTS
        self.tag = tag
        self.has_acls = has_acls
        self.future = future
        self.entries: list[MailboxEntry] = []
        self.rows_left = MAX_LIST_ROWS if is_list else MAX_ROWS
        self.octets_left = MAX_LIST_OCTETS
        self.answer: Response | None = None
        self.progress = 0

    def active(self, name: bytes, raw_location: bytes, raw_acl: bytes) -> MailboxEntry:
        """A row of it, as far as it is wanted."""
        raw_acl = raw_acl if self.has_acls else b""
        return MailboxEntry(MailboxName(name), EntryState.ACTIVE, raw_location, raw_acl)


class MasterClient:
    """See the module. Belongs to one event loop. `target` comes from `link.master_target`."""

    def __init__(self, target: Target) -> None:
        self._masters = Masters(target)
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._pending: dict[bytes, _Pending] = {}
        self._closed = False
        self._returning: asyncio.Task[None] | None = None
        self.connections = 0  # how often it has connected: who compares lists starts anew with each

    @property
    def target(self) -> Target:
        """Whom it calls; of several masters, as the configuration has them."""
        return self._masters.target

    @target.setter
    def target(self, target: Target) -> None:
        self._masters = Masters(target)

    @property
    def at(self) -> str:
        """Who answers: of several masters, the one that is connected."""
        return (self.target if self._link is None else self._link.target).name

    async def reserve(self, name: bytes, raw_location: bytes) -> None:
        """Take the name. Raises Refusal(ALREADY_EXISTS) where another has it, UpstreamFailure."""
        _, answer = await self._command(Verb.RESERVE, name, raw_location)
        if answer.kind is Kind.NO:
            raise _refusal(Code.ALREADY_EXISTS, answer, name)
        if answer.kind is not Kind.OK:
            raise Refusal(Code.UNAVAILABLE, f"{self.target.name} takes no changes: {answer.text}")

    async def activate(self, name: bytes, raw_location: bytes, raw_acl: bytes) -> None:
        """Make the mailbox visible, or change its location or ACL. Raises Refusal(IN_USE) where it is active at
        another server, UpstreamFailure."""
        _, answer = await self._command(Verb.ACTIVATE, name, raw_location, raw_acl)
        if answer.kind is not Kind.OK:
            raise _refusal(Code.IN_USE, answer, name)

    async def force(self, name: bytes, raw_location: bytes, raw_acl: bytes) -> None:
        """As `activate`, whoever has it now: for administrators. At a Cyrus master every ACTIVATE is that. Raises
        Refusal, UpstreamFailure."""
        args = name, raw_location, raw_acl
        try:
            _, answer = await self._command(Verb.FORCE, *args, knows=lambda banner: banner.force)
        except _UnknownError:
            _, answer = await self._command(Verb.ACTIVATE, *args)
        if answer.kind is not Kind.OK:
            raise _refusal(Code.CANNOT, answer, name)

    async def deactivate(self, name: bytes, raw_location: bytes) -> None:
        """Back to reserved. Done already is no error. Raises Refusal, UpstreamFailure."""
        if await self._is_fragile():
            entry = await self.find(name)
            if entry is None:
                raise Refusal(Code.NONEXISTENT, "mailbox not currently active")
            if not entry.is_active:
                return
        _, answer = await self._command(Verb.DEACTIVATE, name, raw_location)
        if answer.kind is not Kind.OK:
            entry = await self.find(name)
            if entry is None or entry.is_active or entry.raw_location != raw_location:
                raise _refusal(Code.CANNOT, answer, name)

    async def delete(self, name: bytes) -> None:
        """Remove the name. Gone already is no error. Raises Refusal, UpstreamFailure."""
        if await self._is_fragile() and await self.find(name) is None:
            return
        _, answer = await self._command(Verb.DELETE, name)
        if answer.kind is not Kind.OK and await self.find(name) is not None:
            raise _refusal(Code.IN_USE, answer, name)

    async def find(self, name: bytes) -> MailboxEntry | None:
        """The master's row of this name. Raises UpstreamFailure."""
        entries, answer = await self._command(Verb.FIND, name)
        self._check(answer)
        return entries[0] if entries else None

    async def list_server(self, server: str) -> Sequence[MailboxEntry]:
        """The master's rows at a server, reserved ones too, in its order. Raises UpstreamFailure."""
        entries, answer = await self._command(Verb.LIST, f"{server}!".encode())
        self._check(answer)
        return [entry for entry in entries if entry.server == server]

    async def list_all(self, *, acls: bool = True) -> list[MailboxEntry]:
        """All rows of the master, reserved ones too, in its order; without their access lists, which may be long, where
        nobody asks for these. Raises UpstreamFailure."""
        entries, answer = await self._command(Verb.LIST, acls=acls)
        self._check(answer)
        return list(entries)

    async def below(self, name: bytes) -> list[MailboxEntry] | None:
        """The master's rows of a mailbox and of all below it, reserved ones too, in its order, without their access lists,
        which may be long. None where it does not know the command (Cyrus): its whole list is too long to be asked for that.
        Raises UpstreamFailure."""
        return await self._part(Verb.BELOW, name, acls=False)

    async def heads(self, after: bytes, count: int) -> list[MailboxEntry] | None:
        """So many of its rows behind a name (b"": from the first one on), reserved ones too, in its order, without their
        access lists; fewer: that is all. None as `below`. Raises UpstreamFailure."""
        return await self._part(Verb.HEADS, after, b"%d" % count, acls=False)

    async def granted(self, identifier: bytes) -> list[MailboxEntry] | None:
        """Its active rows whose access list has this identifier, or what is taken away from it. None as `below`. Raises
        UpstreamFailure."""
        return await self._part(Verb.GRANTED, identifier)

    async def prefixed(self, prefix: bytes) -> list[MailboxEntry] | None:
        """Its rows whose names begin so, reserved ones too, in its order. None as `below`. Raises UpstreamFailure."""
        return await self._part(Verb.PREFIX, prefix)

    async def servers(self) -> dict[str, int] | None:
        """How many rows, reserved ones too, it has of each server that has any. None as `below`. Raises UpstreamFailure."""
        rows = await self._part(Verb.SERVERS)
        return None if rows is None else {row.server: _count_in(row.raw_acl) for row in rows}

    async def _part(self, verb: Verb, *args: bytes, acls: bool = True) -> list[MailboxEntry] | None:
        """The rows of one of `OUR_LISTS`; None where the master does not know it (Cyrus, and an older version)."""
        try:
            entries, answer = await self._command(
                verb, *args, acls=acls, knows=lambda banner: verb in banner.lists
            )
        except _UnknownError:
            return None
        self._check(answer)
        return list(entries)

    async def epoch(self, server: str, number: int) -> int | None:
        """How far that server's store has come: the largest number that the master has been told, this one among them.
        None where it keeps none (Cyrus). Raises UpstreamFailure."""
        _, answer = await self._command(Verb.EPOCH, server.encode(), b"%d" % number)
        if answer.kind is not Kind.OK or not answer.text.isdecimal():
            return None
        if len(answer.text) > MAX_DIGITS:
            text = f"the master tells a number of {len(answer.text)} digits"
            raise UpstreamFailure(UpstreamKind.PROTOCOL, self.target.name, text)
        return int(answer.text)

    async def ping(self) -> None:
        """A round trip. Raises UpstreamFailure."""
        self._check((await self._command(Verb.NOOP))[1])

    @property
    def is_connected(self) -> bool:
        """Whether the last connection still stands."""
        return self._link is not None and not self._link.is_lost

    async def close(self) -> None:
        self._closed = True
        if self._returning is not None:
            self._returning.cancel()
        if self._link is not None and not self._link.is_lost:
            self._link.send(Verb.LOGOUT)
            assert self._link.connection is not None
            self._link.connection.close()
        self._link = None

    async def _is_fragile(self) -> bool:
        """A Cyrus master (3.6) dies of a DELETE or DEACTIVATE of what it does not have: ask before."""
        link = self._link
        if link is None or link.is_lost:
            link = await self._connect()
        return link.banner.mark is None

    def _check(self, answer: Response) -> None:
        if answer.text.startswith(UNAVAILABLE):
            text = answer.text.removeprefix(UNAVAILABLE)
            raise UpstreamFailure(UpstreamKind.UNAVAILABLE, self.target.name, text)
        if answer.kind is not Kind.OK:
            raise UpstreamFailure(
                UpstreamKind.PROTOCOL, self.target.name, f"the master says NO: {answer.text}"
            )

    async def _command(
        self,
        verb: Verb,
        *args: bytes,
        acls: bool = True,
        knows: Callable[[Banner], bool] = lambda _: True,
    ) -> tuple[Sequence[MailboxEntry], Response]:
        """Raises _UnknownError where the master that would be asked does not know the command."""
        for left in reversed(range(self._masters.tries)):
            try:
                return await self._once(verb, *args, acls=acls, knows=knows)
            except UpstreamFailure as failure:
                if failure.kind is not UpstreamKind.LOST or self._closed or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _leave(self, link: Link) -> None:
        """Go on at another master, with whatever waits at this one, too."""
        self._masters.leave(link)
        self._lost(link, link.failure(UpstreamKind.LOST, "the master does not answer"))

    async def _once(
        self, verb: Verb, *args: bytes, acls: bool, knows: Callable[[Banner], bool]
    ) -> tuple[Sequence[MailboxEntry], Response]:
        if args and len(args[0]) > MAX_NAME_OCTETS and verb is not Verb.LIST:
            text = f"A mailbox name may have {MAX_NAME_OCTETS} octets, not {len(args[0])}"
            raise Refusal(Code.LIMIT, text)  # of which a Cyrus master dies, too
        link = self._link
        if link is None or link.is_lost:
            link = await self._connect()
        elif self._returning is None and self._masters.is_look_due(link):
            self._returning = asyncio.get_running_loop().create_task(self._return(link))
        if not knows(link.banner):  # each has its own: another may have been asked a moment ago
            raise _UnknownError
        tag = link.send(verb, *args)
        pending = _Pending(tag, asyncio.get_running_loop().create_future(), verb, acls)
        if verb in LISTS:
            link.session.expect_rows(tag)
        self._pending[tag] = pending
        try:
            await self._wait(link, pending)
        finally:
            if self._pending.get(tag) is pending:  # another connection's may be called the same
                del self._pending[tag]
        assert pending.answer is not None
        if pending.answer.kind is Kind.BYE:
            raise link.failure(UpstreamKind.LOST, f"the master says BYE: {pending.answer.text}")
        if self._masters.are_several and pending.answer.text.startswith(UNAVAILABLE):
            if self._link is link and self._masters.is_worth_leaving(link):
                self._leave(link)
            if self._link is not link:  # by this command, or by another of those answered with it
                raise link.failure(UpstreamKind.LOST, "another master is asked")
        return pending.entries, pending.answer

    async def _wait(self, link: Link, pending: _Pending) -> None:
        """For the answer; the timeout counts from the last octets that came for this command. Of several masters, one
        that says nothing at all, to nobody, is left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            seen, heard = pending.progress, link.heard
            try:
                async with asyncio.timeout(self._masters.patience_s):
                    await asyncio.shield(pending.future)
                return
            except TimeoutError:
                if pending.progress != seen:
                    began = loop.time()
                elif (
                    self._masters.are_several
                    and link.heard == heard
                    and not await self._masters.is_there(link)
                    and not pending.future.done()
                ):
                    self._leave(link)
                elif loop.time() - began >= self.target.command_timeout_s:
                    link.abort()
                    seconds = f"{self.target.command_timeout_s:g} s"
                    raise link.failure(UpstreamKind.TIMEOUT, f"no answer in {seconds}") from None

    async def _connect(self) -> Link:
        async with self._connecting:
            if self._closed:
                raise UpstreamFailure(UpstreamKind.LOST, self.target.name, "shutting down")
            if self._link is None or self._link.is_lost:
                link = await self._masters.open()
                self._link = link
                self.connections += 1
                link.take_over(self._event, lambda failure: self._lost(link, failure))
            return self._link

    async def _return(self, link: Link) -> None:
        """Back to the preferred master once that is there again; what waits is asked there."""
        try:
            if await self._masters.is_better_back(link) and self._link is link:
                self._lost(link, link.failure(UpstreamKind.LOST, "another master is asked"))
                link.drop()
        finally:
            self._returning = None

    def _event(self, event: Event) -> None:
        if isinstance(event, Rows):
            pending = self._pending.get(event.tag)
            if pending is not None:
                octets = sum(
                    sum(map(len, strings)) for strings in (event.names, event.locations, event.acls)
                )
                if self._may_have(pending, len(event.names), octets):
                    pending.entries += [pending.active(*row[:3]) for row in event]
            return
        if not isinstance(event, Response):
            return
        pending = self._pending.get(event.tag)
        if pending is None:
            if event.kind is Kind.BYE and self._link is not None:
                self._link.abort()
            return
        if event.kind in (Kind.MAILBOX, Kind.RESERVE):
            if not self._may_have(pending, 1, sum(map(len, event.args))):
                return
        if event.kind is Kind.MAILBOX:
            pending.entries.append(pending.active(*event.args[:3]))
        elif event.kind is Kind.RESERVE:
            name, raw_location = event.args[:2]
            pending.entries.append(
                MailboxEntry(MailboxName(name), EntryState.RESERVED, raw_location)
            )
        elif is_answer(event, event.tag):
            pending.answer = event
            if not pending.future.done():
                pending.future.set_result(None)

    def _may_have(self, pending: _Pending, rows: int, octets: int) -> bool:
        """Whether so much more may come for it; else the connection ends. A master that never ends is broken, or none."""
        pending.progress += 1
        pending.rows_left -= rows
        pending.octets_left -= octets
        if pending.rows_left >= 0 and pending.octets_left >= 0:
            return True
        link = self._link
        pending.entries = []
        if link is not None and not pending.future.done():
            what = "rows" if pending.rows_left < 0 else "octets"
            text = f"its answer has more {what} than any list; the connection was closed"
            pending.future.set_exception(link.failure(UpstreamKind.PROTOCOL, text))
            pending.future.exception()
            link.abort()
        return False

    def _lost(self, link: Link, failure: UpstreamFailure) -> None:
        if self._link is not link:  # what waited for it has heard so
            return
        self._link = None
        pending, self._pending = list(self._pending.values()), {}
        for command in pending:
            if not command.future.done():
                command.future.set_exception(failure)
                command.future.exception()  # whoever waited may have been cancelled


def _count_in(octets: bytes) -> int:
    return int(octets) if octets.isdigit() and len(octets) < _COUNT_OCTETS else 0


_COUNT_OCTETS: Final = 20
_LIMIT: Final = f"[{Code.LIMIT.value}] "


def _refusal(code: Code, answer: Response, name: bytes) -> Refusal:
    """What a NO means for this command; our master says where a limit is why."""
    if answer.text.startswith(_LIMIT):
        return Refusal(Code.LIMIT, answer.text.removeprefix(_LIMIT), names=(name,))
    if answer.text.startswith(UNAVAILABLE):
        return Refusal(Code.UNAVAILABLE, answer.text.removeprefix(UNAVAILABLE), names=(name,))
    return Refusal(code, answer.text, names=(name,))
