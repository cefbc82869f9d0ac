"""LMTP (RFC 2033) as far as frontend and backend share it: everything but where a recipient is and where a message goes.

A role gives `receive` for each recipient, and a `Delivery` that takes the message and answers for each of them. With
STARTTLS, AUTH, PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING and ENHANCEDSTATUSCODES.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol

from murder.auth.gate import NotAdmitted
from murder.config.value import contains
from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure
from murder.model.address import MAX_HOPS, address_in
from murder.model.identity import Login
from murder.net.connection import Connection
from murder.net.turns import in_turns
from murder.serve.client import NO_COMMAND, Running
from murder.serve.line import ANY, LineDialogue, Row, Table
from murder.serve.lmtp_replies import ENHANCED, STATUS, refused_facts, unknown_parameter
from murder.serve.mail_log import Handled, HeadOf, MailLog, facts_of, new_id
from murder.serve.service import ClientService
from murder.session.lines import Text
from murder.wire.lmtp import (
    Envelope,
    Recipient,
    clean,
    format_path,
    parse_bdat,
    parse_envelope,
    parse_recipient,
    parse_xclient,
    reply,
)

NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
XCLIENT: Final = ("ADDR", "PORT", "HELO", "SESSION", "TTL")  # what we take of it
SKIPPED_FACTOR: Final = 4  # of a message that is too large, so much more is read before we hang up
# a transaction keeps something of each recipient that was named, also where nobody takes its mail
NAMED_FACTOR: Final = 2
# recipients whose replies wait for each other: who sends them without end, and reads nothing, is then waited for
OWED_AT_ONCE: Final = 256
# recipients, each with a line in the mail log: then it is looked whether the turn is over
ANSWERED_AT_ONCE: Final = 16
MAIL_PARAMETERS: Final = frozenset({b"SIZE", b"BODY", b"SMTPUTF8", b"AUTH"})
BODY_TYPES: Final = frozenset({b"7BIT", b"8BITMIME"})
TOO_BIG: Final = (552, "5.3.4", "The message is larger than this server takes")

Answer = bytes | asyncio.Future[bytes]
"""A reply, or who will have it."""


Say = Callable[[bytes], Running]


class Delivery(Protocol):
    """One message on its way to its recipients. Nothing here raises for a server or a disk that fails: that is said by
    `finish`, for each recipient in the order they were accepted."""

    async def write(self, octets: bytes) -> None: ...

    async def finish(self, say: Say) -> None:
        """`say` is given each answer; where it returns something, that is to be awaited before the next one."""
        ...

    def abandon(self) -> None:
        """The message will not be complete: nobody may get it. Also called, without effect, behind `finish`."""
        ...


class LmtpDialogue(LineDialogue):
    """An LMTP connection."""

    protocol = "lmtp"
    # among these networks was this peer: asked for each message
    _trusted: tuple[object, str] = (None, "")
    _bound: tuple[object, Mapping[str, object]] = (None, NOTHING)  # to this log; facts

    def __init__(self, connection: Connection, service: ClientService) -> None:
        super().__init__(connection, service)
        self.peer_name = b""  # as given with LHLO; a proxy's client's, where the proxy told it
        self.told_name = b""
        self.envelope: Envelope | None = None
        self.recipients = 0
        self.delivery: Delivery | None = None  # between the chunks of BDAT
        self.peer_address = connection.peer  # or what an MTA or proxy told with XCLIENT
        self.peer_port = connection.peer_port
        self.hops_left = MAX_HOPS
        self._named = 0  # recipients of this transaction, also those that are refused
        self._octets = 0
        # recipients of a whole message: what is said next they take for theirs
        self._unanswered = 0
        self._messages = 0  # on this connection
        self._accepted: list[bytes] = []  # recipients' addresses
        self._head = HeadOf()
        self._began_at = 0.0
        self._is_whole = False  # the message has come, all of it
        self.message_id = ""  # ours, as the log and the reply have it
        # replies to RCPT, which others are on their way behind, and for whom
        self._owed: list[tuple[bytes, Answer]] = []
        if self.may_deliver:
            self.now_known()

    # --- what a role gives

    def receive(self, given: Envelope) -> Answer | Coroutine[Any, Any, Answer]:
        """A recipient: the reply, or who will have it; or, where something has to be waited for before that is known, who
        tells then. A reply that begins with 2 has accepted it. Raises Refusal, UpstreamFailure, BadSyntax."""
        raise NotImplementedError

    async def begin_delivery(self) -> Delivery:
        """Where the text of the message goes, now that DATA or BDAT has begun. Raises what `reply_for` knows."""
        raise NotImplementedError

    def forget(self) -> None:
        """The transaction is over."""

    @property
    def tells_utf8(self) -> bool:
        """Whether replies of this transaction may have more than ASCII (RFC 6531 §3.7.4.2)."""
        return self.envelope is not None and b"SMTPUTF8" in self.envelope.parameters

    # --- greeting, errors, the end

    @property
    def may_deliver(self) -> bool:
        """A trusted network, a node of the murder, or somebody entitled who has logged in."""
        service, login = self.service, self.login
        trusted, peer = service.limits.lmtp_trusted, self.connection.peer
        if self._trusted[0] is trusted and self._trusted[1] == peer:
            return True
        if contains(trusted, peer):
            self._trusted = trusted, peer
            return True
        if service.gate.is_proxy(self.connection):
            return True
        if login is None or login.proxy:
            return False
        # a Cyrus frontend's user at a backend; at a frontend they are master users, who are no mail servers
        is_proxy = service.role == "backend" and login.user in service.gate.proxies
        return login.is_admin or is_proxy

    def log_facts(self) -> dict[str, object]:
        facts = super().log_facts()
        facts["peer"] = self.peer_address
        return facts

    @property
    def mail_log(self) -> MailLog:
        """Of this worker."""
        return self.service.mail_log

    def handled(self, recipient: bytes) -> Handled:
        """What the mail log says of the message in hand, for one of its recipients: see `facts_of`."""
        log = self.log
        if self._bound[0] is not log:  # who it is has changed
            self._bound = log, self.log_facts()
        ids = self._bound[1], self.message_id, self._head.message_id
        sender = b"" if self.envelope is None else self.envelope.path
        return *ids, sender, recipient, self._octets, self._began_at, time.monotonic()

    def note_refused(
        self, recipient: bytes, reply: bytes, more: Mapping[str, object] = NOTHING
    ) -> None:
        """A recipient will not have it. `more`: facts about that."""
        self.service.figures.add("messages", "refused")
        handled = self.handled(recipient)
        self.mail_log.info("message.refused", partial(refused_facts, handled, more, reply))

    def greet(self) -> None:
        self.send(reply(220, "", f"{self.service.server_name} LMTP murder ready"))

    def say_wrong(self, text: str, *, closing: bool) -> None:
        self.send(reply(421, "4.7.0", text) if closing else reply(501, "5.5.2", text))

    def challenge(self, octets: bytes) -> bytes:
        return b"334 " + octets + b"\r\n"

    def timed_out(self) -> None:
        self.send(reply(421, "4.4.2", "Idle for too long"))
        self.close()

    def say_bye(self, text: str, code: Code = Code.UNAVAILABLE) -> None:
        """421, and the end."""
        self.send(reply(421, "4.7.0" if code is Code.EXPIRED else "4.3.2", text))
        self.close()

    def is_quiet(self) -> bool:
        return super().is_quiet() and self.delivery is None

    def failed(self, event: Any, error: Exception) -> None:
        match error:
            case BadSyntax():
                self.malformed(error)
            case TimeoutError():
                self.timed_out()
            case _:
                count, self._unanswered = self._unanswered or 1, 0
                self.send(self.reply_for(error) * count)

    def reply_for(self, error: BaseException) -> bytes:
        """The one place where an exception becomes an LMTP reply."""
        match error:
            case Refusal():
                code, enhanced = STATUS.get(error.code, (451, "4.3.0"))
                return reply(code, enhanced, error.text)
            case UpstreamFailure():
                self.note_failure(error)
                text = f"{error.server}: {error.kind.reply}, try again later"
                return reply(451, ENHANCED[error.kind], text)
        self.note_failure(error)
        return reply(451, "4.3.0", "Internal error, try again later")

    def ended(self) -> None:
        self._reset()

    # --- commands

    def run(self, line: bytes) -> Running:
        if self._owed:
            row = self.TABLE.get(self.cut(line)[0])
            if row is None or not row.pipelined:
                return self._run_behind(line)
        return super().run(line)

    def not_allowed(self, keyword: bytes, row: Row | None) -> Running:
        raise BadSyntax(clean(keyword[:40].decode("ascii", "replace")) + NO_COMMAND)

    def _rset(self, arguments: bytes) -> None:
        self._reset()
        self.send(reply(250, "2.0.0", "Ok"))

    def _noop(self, arguments: bytes) -> None:
        self.send(reply(250, "2.0.0", "Ok"))

    def _quit(self, arguments: bytes) -> None:
        self.send(reply(221, "2.0.0", "Goodbye"))
        self.close()

    def _vrfy(self, arguments: bytes) -> None:
        self.send(reply(252, "2.5.0", "Send some mail, that will tell"))

    def _helo(self, arguments: bytes) -> None:
        self.send(reply(500, "5.5.1", "This is LMTP: say LHLO"))

    async def _run_behind(self, line: bytes) -> None:
        """A command behind recipients whose replies are not there yet."""
        await self._settle()
        running = self.run(line)
        if running is not None:
            await running

    def _lhlo(self, arguments: bytes) -> Running:
        name = arguments.strip()
        if not name:
            raise BadSyntax("LHLO takes a name")
        self._reset()
        self.peer_name = self.told_name or name[:255]
        words = ["PIPELINING", f"SIZE {self.service.limits.max_message_bytes}", "8BITMIME"]
        words += ["SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"]
        if self.may_start_tls:
            words.append("STARTTLS")
        mechanisms = self.service.gate.mechanisms(self.connection, self.protocol)
        if mechanisms and self.login is None:
            words.append("AUTH " + " ".join(mechanisms))
        if self.may_deliver:
            words.append("XCLIENT " + " ".join(XCLIENT))
        suppressed = {word.upper() for word in self.service.limits.suppress_capabilities}
        kept = [word for word in words if word.partition(" ")[0] not in suppressed]
        self.send(reply(250, "", self.service.server_name, *kept))
        return None

    def _xclient(self, arguments: bytes) -> None:
        """Postfix's XCLIENT, from whom we take mail: whom it speaks for. It begins anew, with the greeting."""
        if not self.may_deliver:
            self.send(reply(550, "5.7.0", "Not from you"))
            return
        if self.envelope is not None:
            self.send(reply(503, "5.5.1", "A transaction is open"))
            return
        fields = parse_xclient(arguments)
        with contextlib.suppress(ValueError):
            address = fields.get(b"ADDR", b"").decode("ascii", "replace")
            self.peer_address = str(address_in(address.removeprefix("IPV6:")))
        for name, digits in ((b"PORT", 5), (b"TTL", 3)):
            value = fields.get(name, b"")
            if value.isdigit() and len(value) <= digits:
                if name == b"PORT":
                    self.peer_port = int(value)
                else:
                    self.hops_left = min(int(value), MAX_HOPS)
        self.session_told = clean(fields.get(b"SESSION", b"").decode("ascii", "replace"))
        self._log = None
        self._reset()
        self.peer_name = b""
        self.told_name = fields.get(b"HELO", b"")[:255]
        self.greet()

    def _starttls(self, arguments: bytes) -> Running:
        if not self.may_start_tls:
            self.send(reply(502, "5.5.1", "No TLS here, or it is active already"))
            return None
        self._reset()
        self.peer_name = b""  # RFC 3207 §4.2: forget what was said before
        return self._start_tls()

    async def _start_tls(self) -> None:
        await self.switch_to_tls(reply(220, "2.0.0", "Begin TLS now"))
        if self.service.within is not None and self.service.gate.is_proxy(self.connection):
            self.pass_on().resume()
        elif self.may_deliver:  # its certificate is all that a node shows
            self.now_known()

    async def _auth(self, arguments: bytes) -> None:
        if self.login is not None or self.envelope is not None:
            self.send(reply(503, "5.5.1", "AUTH is not possible now"))
            return
        try:
            login = await self.authenticate(arguments)
        except NotAdmitted as refusal:
            is_offered = refusal.code is not Code.CANNOT  # RFC 4954 §4
            text = refusal.text
            self.send(self.reply_for(refusal) if is_offered else reply(504, "5.5.4", text))
            if self.login_failed(refusal.user, refusal.code.value):
                self.say_bye("Too many failed logins")
            return
        if self.is_for_within(login):
            heir = self.pass_on()
            heir.peer_name = self.peer_name
            heir.go_on(None, heir._let_in(login))
        else:
            await self._let_in(login)

    async def _let_in(self, login: Login) -> None:
        self.entered(login)
        self.send(reply(235, "2.7.0", f"Logged in as {login.user}"))

    def _mail(self, arguments: bytes) -> Running:
        if not self.peer_name:
            self.send(reply(503, "5.5.1", "Say LHLO first"))
        elif not self.may_deliver:
            self.send(reply(530, "5.7.0", "Authentication required"))
        elif self.envelope is not None:
            self.send(reply(503, "5.5.1", "A transaction is open already"))
        else:
            envelope = parse_envelope(arguments, b"FROM:")
            if unknown := envelope.parameters.keys() - MAIL_PARAMETERS:
                self.send(unknown_parameter(unknown))
                return None
            if envelope.parameters.get(b"BODY", b"8BITMIME").upper() not in BODY_TYPES:
                raise BadSyntax("BODY is 7BIT or 8BITMIME")
            size = envelope.parameters.get(b"SIZE", b"0")
            if not size.isdigit():
                raise BadSyntax("SIZE takes a number")
            if len(size) > 20 or int(size) > self.service.limits.max_message_bytes:
                self.send(reply(*TOO_BIG))
                return None
            self.envelope = envelope
            self._messages += 1
            self.message_id = new_id(self.connection.cid, self._messages)
            self._began_at = time.monotonic()
            self.send(reply(250, "2.1.0", "Ok"))
        return None

    def _rcpt(self, arguments: bytes) -> Running:
        """The reply goes out with those of the recipients that are pipelined behind it, so that they can be asked at
        once; in order, and before anything else. Mostly there is nothing to wait for."""
        path = b""
        try:
            given = self._recipient_of(arguments)
            path = given.path
            if self.service.gate.auth.finds_people:
                return self._rcpt_behind(path, self._receive_meant(given))
            answer = self._answer_for(given)
        except BadSyntax as wrong:
            if not self._owed:
                raise
            return self._wrong_behind(wrong)
        except _Answered as known:
            answer = known.reply
        except (Refusal, UpstreamFailure) as error:
            answer = self.reply_for(error)
        if isinstance(answer, bytes | asyncio.Future):
            return self._note_answer(path, answer)
        return self._rcpt_behind(path, answer)

    async def _rcpt_behind(self, path: bytes, waits: Coroutine[Any, Any, Answer]) -> None:
        """As `_rcpt`, where something has to be waited for."""
        answer: Answer
        try:
            answer = await waits
        except BadSyntax:
            await self._settle()
            raise
        except (Refusal, UpstreamFailure) as error:
            answer = self.reply_for(error)
        running = self._note_answer(path, answer)
        if running is not None:
            await running

    async def _wrong_behind(self, wrong: BadSyntax) -> None:
        await self._settle()
        raise wrong

    def _note_answer(self, path: bytes, answer: Answer) -> Running:
        if isinstance(answer, bytes) and not self._owed:
            self._say(path, answer)
            return None
        self._owed.append((path, answer))
        if len(self._owed) >= OWED_AT_ONCE or not self.session.has_line:
            return self._settle()
        return None

    def _recipient_of(self, arguments: bytes) -> Envelope:
        """Raises BadSyntax, _Answered."""
        if self.envelope is None or self.delivery is not None:
            raise _Answered(reply(503, "5.5.1", "Say MAIL first"))
        given = parse_envelope(arguments, b"TO:")
        if given.parameters:
            raise _Answered(unknown_parameter(given.parameters.keys()))
        self.understood()
        return given

    def _answer_for(self, given: Envelope) -> Answer | Coroutine[Any, Any, Answer]:
        """As `receive`."""
        self._named += 1
        most = self.service.limits.max_recipients
        if self.recipients + len(self._owed) >= most or self._named > NAMED_FACTOR * most:
            return reply(452, "4.5.3", "Too many recipients")
        return self.receive(given)

    async def _receive_meant(self, given: Envelope) -> Answer:
        """The recipient by their user id, where a plugin knows whose the address is. Raises as `receive`."""
        gate = self.service.gate
        recipient = parse_recipient(given.path)
        user: str | None = None
        if recipient.local and recipient.domain:
            address = (recipient.local + b"@" + recipient.domain).decode("utf-8", "replace")
            user = await gate.in_time(gate.auth.user_of_address(address))
        if user is not None:
            local, _, domain = user.encode().partition(b"@")
            path = format_path(Recipient(local, recipient.detail, domain))
            given = replace(given, path=path)
        answer = self._answer_for(given)
        return answer if isinstance(answer, bytes | asyncio.Future) else await answer

    async def _settle(self) -> None:
        """Send the replies to all recipients so far."""
        owed, self._owed = self._owed, []
        for number, (path, answer) in enumerate(owed, 1):
            self._say(path, answer if isinstance(answer, bytes) else await answer)
            if not number % ANSWERED_AT_ONCE:
                await self.flush()

    def _say(self, path: bytes, answer: bytes) -> None:
        if answer.startswith(b"2"):
            self.recipients += 1
            self._accepted.append(path)
        elif path:
            self.note_refused(path, answer)
        self.send(answer)

    # --- the message

    def _lacks_recipients(self) -> bool:
        if self.envelope is None or not self.recipients:
            self.send(reply(503, "5.5.1", "No valid recipients"))
            return True
        return False

    async def _data(self, arguments: bytes) -> None:
        if self._lacks_recipients():
            return
        if self.delivery is not None:
            self.send(reply(503, "5.5.1", "BDAT goes on with BDAT"))
            return
        self.session.expect_text()
        try:
            self.delivery = await self.begin_delivery()
            self.send(reply(354, "", "End with a line of one dot"))
            await self._take(self.delivery)
            await self._finish(self.delivery)
        finally:
            self._reset()

    async def _bdat(self, size: int, last: bool) -> None:
        """RFC 3030 §2: each chunk is answered; the last one for each recipient."""
        self.session.expect_octets(size, goes_on=self.delivery is not None)
        is_wanted = self.envelope is not None and self.recipients > 0
        ended = last or not is_wanted
        try:
            if is_wanted and self.delivery is None:
                self.delivery = await self.begin_delivery()
            await self._take(self.delivery)
            if self.delivery is None:
                self.send(reply(503, "5.5.1", "No valid recipients"))
            elif last:
                await self._finish(self.delivery)
            else:
                self.send(reply(250, "2.0.0", f"{size} octets received"))
        except BaseException:
            ended = True
            raise
        finally:
            if ended:
                self._reset()

    async def _take(self, delivery: Delivery | None) -> None:
        """All octets of the text or the chunk; what is too large is read to its end, within reason."""
        limit = self.service.limits.max_message_bytes
        is_last = False
        while not is_last:
            event = await self.next_event(self.service.limits.command_timeout_s)
            if not isinstance(event, Text):
                raise Misuse("a line amid the text")
            is_last = event.last
            self._octets += len(event.octets)
            if self._octets > limit * SKIPPED_FACTOR:
                self.send(reply(*TOO_BIG))
                self.close()
                raise ConnectionResetError("far too large a message")
            if delivery is not None and self._octets <= limit and event.octets:
                self._head.feed(event.octets)
                await delivery.write(event.octets)

    async def _finish(self, delivery: Delivery) -> None:
        self._is_whole = True
        if self._octets > self.service.limits.max_message_bytes:
            delivery.abandon()
            answer = reply(*TOO_BIG)
            async for path in in_turns(self._accepted):
                self.note_refused(path, answer)
            self.send(answer * self.recipients)
            return
        self.need_peer()
        self._unanswered = self.recipients
        await delivery.finish(self._say_what_became)
        self._unanswered = 0  # a role may give all answers as one
        self.understood()

    def _say_what_became(self, answer: bytes) -> Running:
        """Of the message, for one recipient or more."""
        self._unanswered -= 1
        self.send(answer)
        answered = self.recipients - self._unanswered
        return None if answered % ANSWERED_AT_ONCE else self._let_others_go_on()

    async def _let_others_go_on(self) -> None:
        """As `flush`; where the client has gone the others are heard all the same, for each is in the mail log."""
        if self.connection.is_lost:
            await self.rest()
            return
        with contextlib.suppress(ConnectionResetError):
            await self.flush()

    def _reset(self) -> None:
        if self.delivery is not None:
            self.delivery.abandon()
            if not self._is_whole:
                facts = {**facts_of(self.handled(b"")), "recipients": self.recipients}
                self.mail_log.info("message.incomplete", facts)
        self._is_whole = False
        self._accepted = []
        self._head = HeadOf()
        self.delivery = None
        self.envelope = None
        self.recipients = self._named = 0
        self._octets = 0
        self.forget()

    TABLE: ClassVar[Table] = {
        b"LHLO": Row(ANY, _lhlo),
        b"MAIL": Row(ANY, _mail),
        b"RCPT": Row(ANY, _rcpt, pipelined=True),
        b"DATA": Row(ANY, _data),
        b"BDAT": Row(ANY, lambda dialogue, given: dialogue._bdat(*parse_bdat(given))),
        b"RSET": Row(ANY, _rset),
        b"NOOP": Row(ANY, _noop),
        b"QUIT": Row(ANY, _quit),
        b"STARTTLS": Row(ANY, _starttls),
        b"AUTH": Row(ANY, _auth),
        b"XCLIENT": Row(ANY, _xclient),
        **dict.fromkeys((b"VRFY", b"EXPN"), Row(ANY, _vrfy)),
        **dict.fromkeys((b"HELO", b"EHLO"), Row(ANY, _helo)),
    }


class _Answered(Exception):
    """A RCPT that concerns no recipient; what is said to it."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self.reply = reply
