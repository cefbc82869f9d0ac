"""LMTP at a frontend: each recipient goes to the backend of its mailbox, the message to each backend once (RFC 2033).

Each RCPT is put to its backend, pipelined ones to all at once; the message streams to all backends side by side; what
each answers for each recipient is passed on as it is. A backend that fails or is slow costs its own recipients a 451 and
nobody else anything. 250 is never said that no backend has said.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.acl import ANYONE, POST, rights_granted
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, is_deleted, is_non_imap
from murder.model.protocol import LMTP
from murder.net.connection import Connection
from murder.net.outgoing.lines import LineUpstream, open_lines, prove
from murder.roles.frontend.lmtp_transaction import LmtpTransaction
from murder.roles.frontend.origin import checked_hops
from murder.roles.frontend.shared import Frontend
from murder.serve.addressing import Candidate, candidates_of
from murder.serve.lmtp import LmtpDialogue, Say
from murder.serve.lmtp_replies import shown_reply
from murder.serve.mail_log import Handled, facts_of
from murder.serve.service import ClientService
from murder.wire.lmtp import Envelope, format_xclient, parse_recipient, parse_saved

UNKNOWN = "No such user here"
UNKNOWN_THERE = re.compile(rb"550[- ](?:5\.1\.|(?!\d\.\d))")  # and nothing else is wrong with it


class FrontendLmtp(LmtpDialogue):
    """See the module. Connections to backends are kept for the client's life."""

    def __init__(self, connection: Connection, service: ClientService, frontend: Frontend) -> None:
        super().__init__(connection, service)
        self.frontend = frontend
        self.transactions: dict[str, LmtpTransaction] = {}  # of this transaction, by backend
        self.upstreams: dict[str, LineUpstream] = {}
        # all RCPT, in order: the transaction, the address, and the answer to come
        self._asked: list[tuple[LmtpTransaction, bytes, asyncio.Future[bytes]]] = []
        self._last: dict[str, LmtpTransaction] = {}  # which may still be ending
        self._offered: dict[str, frozenset[bytes]] = {}
        frontend.sessions.add(self)

    def receive(
        self, given: Envelope
    ) -> "asyncio.Future[bytes] | Coroutine[Any, Any, asyncio.Future[bytes]]":
        """Certainly unknown: 550. Not to be known now (UpstreamFailure): 451. Else its backend answers, in time."""
        path = given.path
        candidates = self._candidates(path)
        entry = self._known(candidates)
        return (
            self._receive(path, candidates) if entry is None else self._put_to(entry.server, path)
        )

    async def _receive(
        self, path: bytes, candidates: Sequence[Candidate]
    ) -> "asyncio.Future[bytes]":
        entry = await self._look_up(candidates)
        return self._put_to(entry.server, path)

    def _put_to(self, server: str, path: bytes) -> "asyncio.Future[bytes]":
        transaction = self.transactions.get(server) or self._begin_with(server)
        answer = transaction.recipient(path)
        self._asked.append((transaction, path, answer))
        return answer

    async def judged(self, server: str, path: bytes, reply: bytes) -> bytes:
        """A backend that knows a recipient no more may just have given it away: its mail must not go back for that."""
        if not UNKNOWN_THERE.match(reply):
            return reply
        try:
            await self.frontend.locator.catch_up()
            entry = await self._find(path)
        except Refusal:
            return reply
        except UpstreamFailure as failure:
            return self.reply_for(failure)
        if entry.server == server:
            return reply
        moved = UpstreamFailure(
            UpstreamKind.MOVING, entry.server, "the mailbox has just moved there"
        )
        return self.reply_for(moved)

    def _begin_with(self, server: str) -> LmtpTransaction:
        assert self.envelope is not None
        config = self.frontend.config
        opened = LmtpTransaction(
            self,
            server,
            self.envelope,
            answer_timeout_s=config.upstream_login_timeout_s,
            timeout_s=config.upstream_timeout_s,
            folder=self.frontend.whole_config.node.data,
            former=self._last.get(server),
        )
        self.transactions[server] = self._last[server] = opened
        return opened

    async def _find(self, path: bytes) -> MailboxEntry:
        candidates = self._candidates(path)
        return self._known(candidates) or await self._look_up(candidates)

    def _candidates(self, path: bytes) -> Sequence[Candidate]:
        frontend = self.frontend
        domains = frontend.whole_config.namespace.domains
        return candidates_of(parse_recipient(path), frontend.namespace, domains=domains)

    def _known(self, candidates: Sequence[Candidate]) -> MailboxEntry | None:
        """Where this host's list has one of them."""
        known = self.frontend.locator.known
        for candidate in candidates:
            if candidate.user and candidate.folder is not None:
                entry = known(candidate.folder)
                if entry is None or is_deleted(entry.name) or is_non_imap(entry.name):
                    continue
                if POST in rights_granted(entry.raw_acl, {ANYONE}):
                    return entry  # as its backend decides
        for name in _homes(candidates):
            if (entry := known(name)) is not None:
                return entry
        return None

    async def _look_up(self, candidates: Sequence[Candidate]) -> MailboxEntry:
        """What this host's list may only have in a moment."""
        for name in _homes(candidates):
            try:
                return await self.frontend.locator.find(name)
            except Refusal:
                continue
        raise Refusal(Code.NONEXISTENT, UNKNOWN)

    async def begin_delivery(self) -> "Forwarding":
        return Forwarding(list(self.transactions.values()), self._asked, self._answered)

    def _answered(self, server: str, path: bytes, answer: bytes) -> None:
        """A backend, for one of the recipients: for the mail log."""
        self.service.figures.add("messages", "relayed" if answer.startswith(b"2") else "refused")
        handled = self.handled(path)
        self.mail_log.info("message.relayed", partial(_relayed, handled, server, answer))

    async def upstream(self, server: str) -> LineUpstream:
        """The connection to a backend, ready for MAIL. Raises UpstreamFailure."""
        known = self.upstreams.get(server)
        if known is not None and not known.is_lost:
            return known
        frontend = self.frontend
        opened = await open_lines(
            frontend.upstreams,
            server,
            LMTP,
            frontend.config.upstream_timeout_s,
            self.connection,
        )
        try:
            async with frontend.upstreams.entering(opened.server):
                await self._enter_upstream(opened)
        except BaseException:
            opened.connection.abort()
            raise
        self.upstreams[server] = opened
        return opened

    def takes(self, server: str, word: bytes) -> bool:
        return word in self._offered.get(server, ())

    async def _enter_upstream(self, upstream: LineUpstream) -> None:
        hello = b"LHLO " + self.service.server_name.encode() + b"\r\n"
        await self._ask(upstream, b"", b"2")
        words = await self._ask(upstream, hello, b"2")
        address = upstream.address
        if address.tls == "starttls":
            await self._ask(upstream, b"STARTTLS\r\n", b"2")
            await upstream.starttls(self.frontend.upstreams)
            words = await self._ask(upstream, hello, b"2")
        is_told, words = await self._tell_origin(upstream, words, hello)
        if address.auth != "external" and b"AUTH" in _words_of(words):
            proof = self.frontend.upstreams.proof(address, "")
            line = await prove(upstream, proof, b"334 ")
            if not line.startswith(b"2"):
                text = f"it refuses our login: {line.decode('utf-8', 'replace')}"
                if line.startswith(b"4"):
                    raise upstream.failure(UpstreamKind.AUTH_TEMPORARY, text)
                raise upstream.failure(UpstreamKind.AUTH, text, proof.cure)
            if not is_told:  # who knows us now may believe us
                words = await self._ask(upstream, hello, b"2")
                _, words = await self._tell_origin(upstream, words, hello)
        self._offered[upstream.server] = _words_of(words)

    async def _tell_origin(
        self, upstream: LineUpstream, words: list[bytes], hello: bytes
    ) -> tuple[bool, list[bytes]]:
        """Whose mail it is, where the server wants to know; whether it does, and what it offers then."""
        xclient = next((line[4:] for line in words if line[4:12].upper() == b"XCLIENT "), b"")
        xclient_line = format_xclient(xclient.upper().split()[1:], self._origin_told())
        if not xclient_line:
            return False, words
        await self._ask(upstream, xclient_line, b"2")
        return True, await self._ask(upstream, hello, b"2")

    def _origin_told(self) -> dict[bytes, bytes]:
        """Who our client is, for a backend that wants to know. Raises UpstreamFailure at the end of too long a chain."""
        hops = checked_hops(self.hops_left - 1, self.service.server_name)
        return {
            b"ADDR": self.peer_address.encode(),
            b"PORT": str(self.peer_port).encode(),
            b"HELO": self.peer_name,
            b"SESSION": self.connection.cid.encode(),
            b"TTL": str(hops).encode(),
        }

    async def _ask(self, upstream: LineUpstream, octets: bytes, expected: bytes) -> list[bytes]:
        if octets:
            upstream.send(octets)
        lines = await upstream.replies()
        if not lines[-1].startswith(expected):
            text = lines[-1].decode("utf-8", "replace")
            raise upstream.failure(UpstreamKind.PROTOCOL, f"it says {text}")
        return lines

    def drop(self, server: str) -> None:
        """A connection on which a transaction went wrong is not used again; a backend that only sleeps must not find
        the message in it when it wakes."""
        upstream = self.upstreams.pop(server, None)
        if upstream is not None:
            upstream.connection.reset()

    def forget(self) -> None:
        for transaction in self.transactions.values():
            transaction.let_go()
        self.transactions = {}
        self._asked = []

    def ended(self) -> None:
        super().ended()
        self.frontend.sessions.discard(self)
        for upstream in self.upstreams.values():
            upstream.close()
        self.upstreams.clear()


def _relayed(handled: Handled, server: str, answer: bytes) -> dict[str, object]:
    """For the mail log."""
    facts = facts_of(handled)
    facts["backend"] = server
    if saved_as := parse_saved(answer):  # "" at other servers than ours
        facts["saved_as"] = saved_as
    facts["reply"] = shown_reply(answer)
    return facts


class Forwarding:
    """A message on its way to the backends of its recipients."""

    def __init__(
        self,
        transactions: Sequence[LmtpTransaction],
        asked: Sequence[tuple[LmtpTransaction, bytes, "asyncio.Future[bytes]"]],
        answered: Callable[[str, bytes, bytes], None],
    ) -> None:
        self._answered = answered
        self._transactions = transactions
        self._waiter: asyncio.Future[None] | None = None
        self._verdicts: list[tuple[str, bytes, asyncio.Future[bytes]]] = []  # by whom, for whom
        for transaction in transactions:
            transaction.progressed = self._go_on
            transaction.begin_text()
        places = {transaction: iter(transaction.verdicts) for transaction in transactions}
        for transaction, path, answer in asked:
            if answer.result().startswith(b"2"):
                self._verdicts.append((transaction.server, path, next(places[transaction])))

    async def write(self, octets: bytes) -> None:
        """As fast as the fastest backend takes it."""
        for transaction in self._transactions:
            transaction.write(octets)
        while self._all_behind():
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _go_on(self) -> None:
        """One of them has taken some, or is over."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _all_behind(self) -> bool:
        is_one_behind = False
        for transaction in self._transactions:
            if not transaction.is_done:
                if not transaction.is_behind:
                    return False
                is_one_behind = True
        return is_one_behind

    async def finish(self, say: Say) -> None:
        """One reply for each, in order, as soon as it is known."""
        for transaction in self._transactions:
            transaction.end_text()
        for server, path, verdict in self._verdicts:
            answer = await verdict
            self._answered(server, path, answer)
            rests = say(answer)
            if rests is not None:
                await rests

    def abandon(self) -> None:
        for transaction in self._transactions:
            transaction.let_go()


def _homes(candidates: Sequence[Candidate]) -> list[MailboxName]:
    return [name for each in candidates if (name := each.inbox or each.folder) is not None]


def _words_of(answer: list[bytes]) -> frozenset[bytes]:
    """What an answer to LHLO offers."""
    return frozenset(line[4:].upper().split(b" ")[0] for line in answer[1:])
