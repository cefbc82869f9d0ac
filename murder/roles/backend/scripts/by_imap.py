"""Scripts see what clients have done by IMAP (imapsieve, RFC 6785): a message came by APPEND, COPY or MOVE, or its flags
have changed. Behind the client's back: it has its OK, what is to be seen is put down before that, and survives a crash.

One process of a backend does it. What scripts do is not seen by scripts. What they do not keep is flagged \\Deleted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from murder.api.delivery import Arriving
from murder.api.store import Mailbox, NewMessage, Once
from murder.errors import BadSyntax, Code, Refusal, UpstreamFailure
from murder.log import Log, logger
from murder.model.acl import Rights
from murder.model.flag import DELETED, FlagChange, fitting, is_keyword
from murder.model.identity import Login
from murder.model.message import Message, Uid
from murder.model.name import MailboxName, display, owner_of
from murder.model.rights import changeable
from murder.roles.backend.records.caused import Caused
from murder.roles.backend.scripts.carry_out import Delivery
from murder.roles.backend.scripts.copies import write_in_turns
from murder.roles.backend.scripts.rules import scripts_for_cause
from murder.roles.backend.scripts.run import Ran, Room, run_scripts
from murder.roles.backend.scripts.telling import tell_owners
from murder.roles.backend.scripts.worklist import Worklist
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import Unattended, trace_append, trace_expunge
from murder.sieve import Circumstances, FileInto, Keep, Outcome
from murder.wire import mutf7
from murder.wire.imap.flag import parse_flag_list
from murder.wire.token import Scanner

TURN_S: Final = 2.0  # for the messages of one row, then others have theirs
MOST_TRIES: Final = 6
RETRY_S: Final = 60.0  # then twice as late each time


class ImapScripts:
    """See the module."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._log = logger(role="backend")
        self.rows = Worklist(backend.deliveries.due_caused, self._work_off, self._failed)

    def _failed(self, error: Exception) -> None:
        self._log.error("script.not_run", user="", mailbox="", problem="", exc_info=error)

    async def _work_off(self, row: Caused) -> None:
        """Raises nothing that a message of it is to blame for."""
        deliveries = self._backend.deliveries
        log = self._log.bind(user=row.user, cause=row.cause)
        loop = asyncio.get_running_loop()
        ends = loop.time() + TURN_S
        for number, uid in enumerate(row.uids[row.done :], row.done):
            problem = await self._attempt(row, uid, log)
            if problem is not None:
                if row.tries < MOST_TRIES:
                    await deliveries.later_caused(row, RETRY_S * 2**row.tries)
                    return
                log.warning("script.not_run", mailbox=display(row.mailbox), problem=problem)
            await deliveries.advance_caused(row, number + 1)
            row = replace(row, tries=0)
            if number + 1 < len(row.uids) and loop.time() >= ends:
                return
        await deliveries.end_caused(row)

    async def _attempt(self, row: Caused, uid: Uid, log: Log) -> str | None:
        """What is wrong, where it is to be tried again."""
        try:
            await _see(self._backend, row, uid, log)
        except UpstreamFailure as failure:
            return str(failure)
        except Refusal as refusal:
            if refusal.code is Code.UNAVAILABLE:
                return str(refusal)
            log.warning("script.not_run", mailbox=display(row.mailbox), problem=str(refusal))
        except Exception as error:  # noqa: BLE001 - the end of one message's scripts, not of the others'
            self._log.error(
                "script.not_run",
                user=row.user,
                mailbox=display(row.mailbox),
                problem="",
                exc_info=error,
            )
        return None


async def _see(backend: Backend, row: Caused, uid: Uid, log: Log) -> None:
    """One message. Raises Refusal, UpstreamFailure."""
    try:
        mailbox = await backend.store.open(row.mailbox, row.user)
    except Refusal as refusal:
        if refusal.code is Code.NONEXISTENT:
            return  # it went, and what was in it
        raise
    try:
        messages = await mailbox.messages([uid]) if mailbox.mailbox_id == row.mailbox_id else ()
        if messages:
            await _Seen(backend, row, mailbox, messages[0], log).run()
    finally:
        mailbox.close()


class _Seen:
    """A message and the scripts that see it; what they add to mailboxes (`Copies`)."""

    def __init__(
        self, backend: Backend, row: Caused, mailbox: Mailbox, message: Message, log: Log
    ) -> None:
        self._backend = backend
        self._row = row
        self._mailbox = mailbox
        self._message = message
        self._log = log
        self._doer = Unattended(
            backend.mail_log, {"protocol": "imapsieve", "user": row.user, "cause": row.cause}
        )

    async def run(self) -> None:
        """Raises Refusal, UpstreamFailure."""
        backend, row = self._backend, self._row
        scripts = await scripts_for_cause(backend, row)
        if not scripts:
            return
        login = await backend.gate.login_of(row.user)
        address = next(iter(login.identity.addresses), row.user).encode("utf-8", "surrogateescape")
        octets = await self._mailbox.octets(self._message.uid)
        arriving = Arriving(address, address, row.mailbox, row.user, octets)
        circumstances = self._circumstances(address.decode("utf-8", "surrogateescape"))
        async with Room(backend, arriving) as room:
            ran = await run_scripts(backend, arriving, scripts, self._log, room, circumstances)
            await tell_owners(backend, ran.faults, self, self._log)
            if ran.outcome is not None:
                await self._carry_out(arriving, ran, ran.outcome, login)

    def _circumstances(self, address: str) -> Circumstances:
        backend, row = self._backend, self._row
        name = backend.server_name
        seen_as = backend.namespace.external(row.mailbox, row.user)
        return Circumstances(
            now=datetime.now().astimezone(),
            user=row.user,
            host=name,
            environment={
                "domain": name.partition(".")[2],
                "host": name,
                "location": "MS",
                "phase": "post",
                "imap.user": row.user,
                "imap.email": address,
                "imap.cause": row.cause,
                "imap.mailbox": mutf7.decode_leniently(seen_as),
                "imap.changedflags": " ".join(row.flags),
            },
            flags=tuple(sorted(self._message.flags)),
            may_reply=False,
        )

    async def _carry_out(
        self, arriving: Arriving, ran: Ran, outcome: Outcome, login: Login
    ) -> None:
        backend, row, message = self._backend, self._row, self._message
        present = tuple(sorted(message.flags - {DELETED}))
        actions = [
            replace(action, flags=present)
            if isinstance(action, FileInto) and action.flags is None
            else action
            for action in outcome.actions
        ]
        incoming = backend.store.incoming()
        try:
            if any(isinstance(action, FileInto) for action in actions):
                await write_in_turns(incoming, (arriving.octets,))
            assert backend.upstreams is not None
            delivery = Delivery(
                backend,
                backend.upstreams,
                arriving,
                replace(outcome, actions=tuple(actions)),
                ran.scripts,
                NewMessage(incoming, internal_date=message.internal_date),
                self,
                self._log,
                occasion=f"/{row.id}/{message.uid}",
            )
            facts = await delivery.carry_out()
        finally:
            await incoming.close()
        if facts is not None:
            self._log.info("message.filtered", **facts)
        rights = backend.mailboxes.require(row.mailbox, login, "l").rights
        keeps = [action for action in outcome.actions if isinstance(action, Keep)]
        if not delivery.stays:
            await self._flag(FlagChange.ADD, frozenset({DELETED}), rights)
        elif keeps and keeps[0].version:
            pieces = outcome.messages[keeps[0].version].pieces
            await self._replace(pieces, keeps[0], rights)
        elif keeps and keeps[0].flags is not None:
            await self._set(_flags_of(keeps[0].flags), rights)

    async def _set(self, flags: frozenset[str], rights: Rights) -> None:
        """These and no others, as far as the user may change them, and as many more as one message may have."""
        present = self._message.flags
        await self._flag(FlagChange.REMOVE, present - flags, rights)
        kept = sorted(filter(is_keyword, present & flags))
        more = fitting(flags - present, kept)
        await self._flag(FlagChange.ADD, frozenset(more), rights)

    async def _flag(self, change: FlagChange, flags: frozenset[str], rights: Rights) -> None:
        allowed = changeable(flags, rights)
        if allowed:
            await self._mailbox.change_flags([self._message.uid], change, allowed)

    async def _replace(
        self, pieces: Sequence[bytes | memoryview], keep: Keep, rights: Rights
    ) -> None:
        """By what a script has made of it: the new one is durable before the old one goes."""
        if not rights >= frozenset("ite"):
            self._log.warning(
                "message.not_filed",
                mailbox=display(self._row.mailbox),
                wanted="",
                problem="its user may not replace a message there",
            )
            return
        flags = self._message.flags if keep.flags is None else _flags_of(keep.flags)
        incoming = self._backend.store.incoming()
        try:
            await write_in_turns(incoming, pieces)
            new = NewMessage(incoming, changeable(flags, rights), self._message.internal_date)
            await self.add(self._row.mailbox, new)
        finally:
            await incoming.close()
        gone = await self._mailbox.expunge([self._message.uid])
        await trace_expunge(self._doer, self._mailbox, gone)

    async def add_made(self, name: MailboxName, message: NewMessage) -> None:
        await self.add(name, message)

    async def add(self, name: MailboxName, message: NewMessage, once: Once | None = None) -> None:
        """No mark comes here: an occasion is noted when all of it is done."""
        backend = self._backend
        async with backend.quotas.room(name, octets=message.incoming.size, messages=1):
            mailbox = await backend.store.open(name, owner_of(name) or "")
            try:
                uids = await mailbox.append([message])
                await trace_append(self._doer, mailbox, [message], uids)
            finally:
                mailbox.close()


def _flags_of(flags: Sequence[str]) -> frozenset[str]:
    """Those of them that a client could set."""
    parsed: set[str] = set()
    for flag in flags:
        try:
            parsed |= parse_flag_list(Scanner(f"({flag})".encode("ascii")))
        except (BadSyntax, UnicodeError):
            continue
    return frozenset(parsed)
