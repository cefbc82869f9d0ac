"""LMTP at a frontend: each recipient goes to the backend of his mailbox, the message to each backend once (RFC 2033).

The message streams to all backends at once; what each answers for each recipient is passed on as it is. A backend that
fails costs its own recipients a 451 and nobody else anything. 250 is never said that no backend has said.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.frontend.lines import LineUpstream, open_lines, sasl_response
from murder.frontend.shared import Frontend
from murder.login.line import LineService
from murder.login.lmtp import LmtpDialogue, folder_of, users_of
from murder.model.acl import ANYONE, POST, parse_acl
from murder.model.entry import MailboxEntry
from murder.model.name import inbox_of
from murder.net.connection import Connection
from murder.wire.dots import Stuffer
from murder.wire.lmtp import Envelope, parse_recipient, reply

UNKNOWN = "No such user here"


@dataclass(frozen=True, slots=True)
class Addressee:
    """An accepted recipient: as he was written, and the backend he is on."""

    path: bytes
    server: str


class FrontendLmtp(LmtpDialogue):
    """See the module. Connections to backends are kept for the client's life."""

    def __init__(self, connection: Connection, service: LineService, frontend: Frontend) -> None:
        super().__init__(connection, service)
        self.frontend = frontend
        self.addressees: list[Addressee] = []
        self.upstreams: dict[str, LineUpstream] = {}
        self._with_utf8: set[str] = set()
        frontend.sessions.add(self)

    async def receive(self, given: Envelope) -> bytes:
        """Certainly unknown: 550. Not to be known now (UpstreamFailure): 451."""
        entry = await self._find(given.path)
        self.addressees.append(Addressee(given.path, entry.server))
        return reply(250, "2.1.5", "Ok")

    async def _find(self, path: bytes) -> MailboxEntry:
        frontend = self.frontend
        recipient = parse_recipient(path)
        users = users_of(recipient, domains=frontend.whole_config.namespace.domains)
        for user in users:
            folder = folder_of(recipient, user, frontend.namespace)
            found = frontend.locator.known(folder) if folder is not None else None
            if found is not None and POST in parse_acl(found.raw_acl).rights_for({ANYONE}):
                return found  # as its backend decides
        names = [inbox_of(user) for user in users]
        if not names:
            folder = folder_of(recipient, "", frontend.namespace)
            names = [folder] if folder is not None else []
        for name in names:
            entry = frontend.locator.known(name)
            if entry is not None:
                return entry
        for name in names:
            try:
                return await frontend.locator.find(name)
            except Refusal:
                continue
        raise Refusal(Code.NONEXISTENT, UNKNOWN)

    async def begin_delivery(self) -> "Forwarding":
        assert self.envelope is not None
        forwarding = Forwarding(self, self.envelope, self.addressees)
        await forwarding.begin()
        return forwarding

    async def upstream(self, server: str) -> LineUpstream:
        """The connection to a backend, ready for MAIL. Raises UpstreamFailure."""
        found = self.upstreams.get(server)
        if found is not None and not found.is_lost:
            return found
        frontend = self.frontend
        opened = await open_lines(
            frontend.upstreams, server, "lmtp", frontend.config.upstream_timeout_s
        )
        try:
            await self._enter_upstream(opened)
        except BaseException:
            opened.connection.abort()
            raise
        frontend.upstreams.worked(server)
        self.upstreams[server] = opened
        return opened

    def takes_utf8(self, server: str) -> bool:
        """Whether the backend offered SMTPUTF8 (a Cyrus may not, and takes the address all the same)."""
        return server in self._with_utf8

    async def _enter_upstream(self, upstream: LineUpstream) -> None:
        hello = b"LHLO " + self.service.server_name.encode() + b"\r\n"
        await self._ask(upstream, b"", b"2")
        words = await self._ask(upstream, hello, b"2")
        address = upstream.address
        if address.tls == "starttls":
            await self._ask(upstream, b"STARTTLS\r\n", b"2")
            await upstream.starttls(self.frontend.upstreams)
            words = await self._ask(upstream, hello, b"2")
        if any(word[4:].upper() == b"SMTPUTF8" for word in words):
            self._with_utf8.add(upstream.server)
        if address.auth == "plain" and any(b"AUTH" in word for word in words):
            mechanism, response = sasl_response(address, "")
            await self._ask(upstream, b"AUTH " + mechanism + b" " + response + b"\r\n", b"2")

    async def _ask(self, upstream: LineUpstream, octets: bytes, expected: bytes) -> list[bytes]:
        if octets:
            upstream.send(octets)
        lines = await upstream.replies()
        if not lines[-1].startswith(expected):
            text = lines[-1].decode("utf-8", "replace")
            raise upstream.failure(UpstreamKind.PROTOCOL, f"it says {text}")
        return lines

    def drop(self, server: str) -> None:
        """A connection on which a transaction went wrong is not used again."""
        upstream = self.upstreams.pop(server, None)
        if upstream is not None:
            upstream.connection.abort()

    def forget(self) -> None:
        self.addressees = []

    def ended(self) -> None:
        super().ended()
        self.frontend.sessions.discard(self)
        for upstream in self.upstreams.values():
            upstream.close()
        self.upstreams.clear()


class _Group:
    """The recipients of one backend, and how far it has come with them."""

    def __init__(self, dialogue: FrontendLmtp, server: str) -> None:
        self._dialogue = dialogue
        self.server = server
        self.places: list[int] = []  # of its recipients among all
        self.paths: list[bytes] = []
        self.answers: dict[int, bytes] = {}
        self.failure: Exception | None = None
        self._upstream: LineUpstream | None = None
        self._stuffer = Stuffer()
        self._accepted: list[int] = []

    async def begin(self, envelope: Envelope) -> None:
        """MAIL, all RCPTs, DATA. An answer other than 2xx for a recipient is his; a failure is everybody's here."""
        try:
            await self._begin(envelope)
        except UpstreamFailure as failure:
            self._fail(failure)

    async def _begin(self, envelope: Envelope) -> None:
        upstream = await self._dialogue.upstream(self.server)
        parameters = []
        if b"SMTPUTF8" in envelope.parameters and self._dialogue.takes_utf8(self.server):
            parameters.append(b"SMTPUTF8")
        if envelope.parameters.get(b"BODY", b"").upper() == b"8BITMIME":
            parameters.append(b"BODY=8BITMIME")
        mail = b" ".join([b"MAIL FROM:<" + envelope.path + b">", *parameters]) + b"\r\n"
        upstream.send(mail + b"".join(b"RCPT TO:<" + path + b">\r\n" for path in self.paths))
        answer = self._checked(upstream, await upstream.replies())
        for place in self.places:
            lines = self._checked(upstream, await upstream.replies())
            if answer[-1][:1] == b"2" and lines[-1][:1] == b"2":
                self._accepted.append(place)
            else:
                worse = answer if answer[-1][:1] != b"2" else lines
                self.answers[place] = _joined(worse)
        if not self._accepted:
            upstream.send(b"RSET\r\n")
            await upstream.replies()
            return
        upstream.send(b"DATA\r\n")
        lines = await upstream.replies()
        if lines[-1][:1] != b"3":
            self.answers.update(dict.fromkeys(self._accepted, _joined(lines)))
            self._accepted = []
            upstream.send(b"RSET\r\n")
            await upstream.replies()
            return
        self._upstream = upstream

    def _checked(self, upstream: LineUpstream, lines: list[bytes]) -> list[bytes]:
        """What is about our connection is no answer for a recipient: 421 (it goes down), 530 (it does not know us; passed
        on, it would bounce the mail). Raises UpstreamFailure."""
        kinds = {b"421": UpstreamKind.AUTH_TEMPORARY, b"530": UpstreamKind.AUTH}
        kind = kinds.get(lines[-1][:3])
        if kind is not None:
            raise upstream.failure(kind, lines[-1].decode("utf-8", "replace"))
        return lines

    async def write(self, octets: bytes) -> None:
        if self._upstream is None:
            return
        try:
            self._upstream.send(self._stuffer.feed(octets))
            await self._upstream.drain()
        except UpstreamFailure as failure:
            self._fail(failure)

    async def finish(self) -> None:
        """The end of the text, and one reply for each accepted recipient."""
        if self._upstream is None:
            return
        try:
            self._upstream.send(self._stuffer.end())
            for place in self._accepted:
                lines = self._checked(self._upstream, await self._upstream.replies())
                self.answers[place] = _joined(lines)
        except UpstreamFailure as failure:
            self._fail(failure)
        self._upstream = None

    def _fail(self, failure: UpstreamFailure) -> None:
        self.failure = failure
        self._upstream = None
        self._dialogue.drop(self.server)

    def abandon(self) -> None:
        """In the middle of the text only the end of the connection says "not this one"."""
        if self._upstream is not None:
            self._upstream = None
            self._dialogue.drop(self.server)


class Forwarding:
    """A message on its way to the backends of its recipients."""

    def __init__(
        self, dialogue: FrontendLmtp, envelope: Envelope, addressees: Sequence[Addressee]
    ) -> None:
        self._dialogue = dialogue
        self._envelope = envelope
        self._count = len(addressees)
        self._groups: dict[str, _Group] = {}
        for place, addressee in enumerate(addressees):
            group = self._groups.get(addressee.server)
            if group is None:
                group = self._groups[addressee.server] = _Group(dialogue, addressee.server)
            group.places.append(place)
            group.paths.append(addressee.path)

    async def begin(self) -> None:
        await asyncio.gather(*(group.begin(self._envelope) for group in self._groups.values()))

    async def write(self, octets: bytes) -> None:
        await asyncio.gather(*(group.write(octets) for group in self._groups.values()))

    async def finish(self) -> Sequence[bytes]:
        await asyncio.gather(*(group.finish() for group in self._groups.values()))
        answers: dict[int, bytes] = {}
        for group in self._groups.values():
            answers.update(group.answers)
            if group.failure is not None:
                said = self._dialogue.reply_for(group.failure)
                answers.update({place: said for place in group.places if place not in answers})
        return [answers[place] for place in range(self._count)]

    def abandon(self) -> None:
        for group in self._groups.values():
            group.abandon()


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)
