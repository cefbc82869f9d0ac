"""What scripts want sent is sent: from the rows that deliveries have put down, to the server of `[backend.submission]`.

One process of a backend does it. Between the end of a message and the server's word nobody can know whether it is taken
(RFC 1047). For what is redirected that word is noted at once, and without it the mail is sent again: better twice than lost.
A reply or a notification is noted before its end, and not sent again: better lost than twice. What the server refuses for
good is given up, and kept where it would be nowhere else; all else is tried again, later each time. What can be kept
nowhere, as its user has gone, is a file for the operator in the end.
"""

import asyncio
import smtplib
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from murder.api.store import AppendsOnce, Mailbox, NewMessage
from murder.config import Config
from murder.config.sections import SubmissionConfig
from murder.errors import Code, Refusal, UpstreamFailure
from murder.log import logger
from murder.model.message import Uid
from murder.model.name import MailboxName, display, inbox_of, owner_of
from murder.roles.backend.records.deliveries import Mail, key_of
from murder.roles.backend.records.taken import Taken
from murder.roles.backend.scripts.carry_out import read_in_turns
from murder.roles.backend.scripts.copies import write_in_turns
from murder.roles.backend.scripts.elsewhere import append_elsewhere, known_of
from murder.roles.backend.scripts.places import find_kept
from murder.roles.backend.scripts.smtp import Lmtp, Smtp, SmtpOverTls
from murder.roles.backend.scripts.worklist import Worklist
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import Unattended, trace_append
from murder.wire.dots import Stuffer

LATEST_S: Final = 4 * 3600.0
DAY_S: Final = 86_400.0
END: Final = b".\r\n"
MARK: Final = b"X-Sieve-Redirected-From:"  # of a loop; what is kept went nowhere
IN_DOUBT: Final = (
    "no answer came to the end of the message; a reply or notification is not sent twice"
)
PIECE_OCTETS: Final = 64 * 1024  # made ready to be sent at once: meanwhile nobody else has a turn


@dataclass(slots=True)
class Sent:
    """What has become of a mail: the recipients it was taken for, those for whom it is refused for good, and the rest."""

    taken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    problem: str = ""
    in_doubt: list[str] = field(default_factory=list)  # between its end and the answer


@dataclass(frozen=True, slots=True)
class Notes:
    """Of one mail, for whoever sends it, in a thread: what the next process is to know if this one dies."""

    books: Taken
    mail: Mail

    @property
    def is_at_most_once(self) -> bool:
        return not self.mail.octets.startswith(MARK)

    def before_the_end(self, recipients: Sequence[str]) -> None:
        if self.is_at_most_once:
            self.books.note(self.mail.key, recipients)

    def answered(self, recipients: Sequence[str], *, taken: bool) -> None:
        if taken:
            self.books.note(self.mail.key, recipients)
        else:
            self.books.forget(self.mail.key, recipients)


class Submitter:
    """See the module."""

    def __init__(self, backend: Backend, config: Config) -> None:
        self._backend = backend
        self._deliveries = backend.deliveries
        self.config = config
        self._log = logger(role="backend")
        self._is_recovered = False
        self.rows = Worklist(self._due, self._send, self._failed)

    async def _due(self, most: int) -> Sequence[Mail]:
        if not self.config.submission.server:
            return ()
        if not self._is_recovered:
            await self._deliveries.recover()
            self._is_recovered = True
        return await self._deliveries.due(most)

    def _failed(self, error: Exception) -> None:
        self._is_recovered = False  # of what has been sent, a row may not know
        if isinstance(error, Refusal):  # of the disk, which the log tells of
            self._log.warning("outgoing.deferred", user="", to=[], problem=error.text)
            return
        self._log.error("outgoing.deferred", user="", to=[], problem="", exc_info=error)

    async def _send(self, mail: Mail) -> None:
        config = self.config.submission

        notes = Notes(self._deliveries.taken, mail)
        sent = await asyncio.to_thread(submit, config, self.config.node.name, notes)
        if sent.taken:
            self._log.info("outgoing.sent", user=mail.user, to=sent.taken, octets=len(mail.octets))
        if sent.left and time.time() - mail.at > config.give_up_s:
            sent.refused += sent.left
            sent.left = []
        if sent.refused:
            self._log.warning(
                "outgoing.failed", user=mail.user, to=sent.refused, problem=sent.problem
            )
        if sent.refused and mail.keep:
            await self._keep_safe(mail, sent)
        if sent.left:
            wait_s = min(LATEST_S, config.retry_s * 2 ** min(mail.tries, 20))
            await self._deliveries.later(mail, wait_s, sent.problem, sent.left)
            self._log.warning(
                "outgoing.deferred", user=mail.user, to=sent.left, problem=sent.problem
            )
        elif sent.taken:
            await self._deliveries.sent(mail)
        else:
            await self._deliveries.failed(mail, sent.problem)

    async def _keep_safe(self, mail: Mail, sent: Sent) -> None:
        """What is refused, and nowhere else; what cannot be kept now is left."""
        try:
            await self._keep(mail)
            with suppress(OSError):  # else once more, where the row does not come to know
                self._deliveries.taken.note(mail.key, mail.recipients)
            return
        except (Refusal, UpstreamFailure, OSError) as error:
            sent.problem += f"; and it cannot be kept: {error}"
        give_up_s = self.config.submission.give_up_s
        # longer than a deleted user can be had back, by default
        if time.time() - mail.at > give_up_s + max(give_up_s, DAY_S):
            try:
                file = await asyncio.to_thread(self._deliveries.lay_aside, mail)
            except OSError as error:
                sent.problem += f"; nor as a file: {error}"
            else:
                facts = {"user": mail.user, "sender": mail.sender, "to": sent.refused}
                self._log.error(
                    "outgoing.undelivered", **facts, file=str(file), problem=sent.problem
                )
                return
        sent.left += sent.refused

    async def _keep(self, mail: Mail) -> None:
        """Where it would have been kept without the script, or in the INBOX where that has gone: it had been accepted, so no
        quota is asked. Raises Refusal, UpstreamFailure, OSError."""
        backend = self._backend
        octets = memoryview(mail.octets)
        if mail.octets.startswith(MARK):
            octets = octets[mail.octets.find(b"\n") + 1 :]
        place = await find_kept(backend, MailboxName(mail.keep))
        if place is None and mail.user:
            place = await find_kept(backend, inbox_of(mail.user))
        if place is None:
            raise Refusal(Code.NONEXISTENT, f"{display(MailboxName(mail.keep))} is gone")
        if place.server:
            assert backend.upstreams is not None
            known = known_of(await read_in_turns(octets))
            words = (mail.user, frozenset[str](), (octets,), known)
            await append_elsewhere(backend, backend.upstreams, place, *words)
            return
        mailbox = await backend.store.open(place.name, owner_of(place.name) or "")
        try:
            await self._put(mail, octets, mailbox)
        finally:
            mailbox.close()

    async def _put(self, mail: Mail, octets: memoryview, mailbox: Mailbox) -> None:
        backend = self._backend
        incoming = backend.store.incoming()
        try:
            await write_in_turns(incoming, (octets,))
            message = NewMessage(incoming)
            uids = await self._append_once(mailbox, message, mail)
            doer = Unattended(backend.mail_log, {"protocol": "submission", "user": mail.user})
            await trace_append(doer, mailbox, [message], uids)
        finally:
            await incoming.close()

    async def _append_once(
        self, mailbox: Mailbox, message: NewMessage, mail: Mail
    ) -> Sequence[Uid]:
        """None where it was kept before a crash."""
        store = self._backend.store
        if not isinstance(store, AppendsOnce):
            return await mailbox.append([message])
        once = self._deliveries.once(key_of("kept", mail.key.hex()))
        uid = await store.append_once(mailbox, message, once)
        return [] if uid is None else [uid]


def submit(config: SubmissionConfig, own_name: str, notes: Notes) -> Sent:
    """In a thread, to its end."""
    sent, mail = Sent(), notes.mail
    groups = _groups(config, mail)
    try:
        server = config.server
        assert server is not None
        context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        with _connected(config, own_name, context) as client:
            if config.tls == "starttls":
                client._host = config.tls_name or server.host  # type: ignore[attr-defined] # the name it checks
                client.starttls(context=context)
            if client.sock is not None:  # the last dot goes at once
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.ehlo_or_helo_if_needed()
            if config.user:
                client.login(config.user, config.password)
            for group in groups:
                _transaction(client, notes, group, sent)
    except (OSError, smtplib.SMTPException) as error:
        sent.problem = sent.problem or str(error) or type(error).__name__
    if sent.in_doubt and notes.is_at_most_once:
        sent.refused += sent.in_doubt
        sent.problem = IN_DOUBT
    known = {*sent.taken, *sent.refused, *sent.left}
    sent.left += [recipient for recipient in mail.recipients if recipient not in known]
    return sent


def _groups(config: SubmissionConfig, mail: Mail) -> list[list[str]]:
    """Of LMTP's answers behind DATA, one for each recipient, smtplib reads the first."""
    if config.protocol == "lmtp":
        return [[to] for to in mail.recipients]
    return [list(mail.recipients)]


def _connected(config: SubmissionConfig, own_name: str, context: ssl.SSLContext) -> smtplib.SMTP:
    server = config.server
    assert server is not None
    if config.protocol == "lmtp":
        return Lmtp(server.host, server.port, own_name, timeout=config.timeout_s)
    if config.tls == "implicit":
        return SmtpOverTls(
            server.host, server.port, own_name, timeout=config.timeout_s, context=context
        )
    return Smtp(server.host, server.port, own_name, timeout=config.timeout_s)


def _transaction(client: smtplib.SMTP, notes: Notes, recipients: list[str], sent: Sent) -> None:
    """Each recipient into one of `sent`'s lists. Raises OSError, smtplib.SMTPException."""
    mail = notes.mail
    options = _options(client, mail, recipients, sent)
    if options is None:
        sent.refused += recipients
        return
    if not _is_taken(client.mail(mail.sender, options), recipients, sent):
        client.rset()
        return
    accepted = [
        recipient
        for recipient in recipients
        if _is_taken(client.rcpt(recipient), [recipient], sent)
    ]
    if not accepted:
        client.rset()
        return
    code, text = client.docmd("DATA")
    if code != 354:
        _is_taken((code if code >= 400 else 451, text), accepted, sent)
        client.rset()
        return
    stuffer = Stuffer()
    for start in range(0, len(mail.octets), PIECE_OCTETS):
        client.send(stuffer.feed(mail.octets[start : start + PIECE_OCTETS]))
    client.send(stuffer.end().removesuffix(END))
    notes.before_the_end(accepted)
    sent.in_doubt = accepted
    client.send(END)
    answer = client.getreply()
    sent.in_doubt = []
    is_taken = _is_taken(answer, accepted, sent)
    if is_taken:
        sent.taken += accepted
    notes.answered(accepted, taken=is_taken)  # its failure does not change what was answered


def _is_taken(answer: tuple[int, bytes], recipients: list[str], sent: Sent) -> bool:
    code, text = answer
    if 200 <= code < 300:
        return True
    sent.problem = f"{code} {text.decode('utf-8', 'replace')}"
    (sent.refused if code >= 500 else sent.left).extend(recipients)
    return False


def _options(
    client: smtplib.SMTP, mail: Mail, recipients: list[str], sent: Sent
) -> list[str] | None:
    """Of MAIL; None where the server could not be told these addresses."""
    addresses = (mail.sender, *recipients)
    options = []
    try:
        octets = "".join(addresses).encode()
    except UnicodeError:
        sent.problem = "an address is not text"
        return None
    if any(letter < 32 or letter in b"<>\x7f" for letter in octets):
        sent.problem = "an address has characters that no address has"
        return None
    if not octets.isascii():
        if not client.has_extn("smtputf8"):
            sent.problem = "the server takes no addresses in UTF-8 (SMTPUTF8)"
            return None
        options.append("SMTPUTF8")
    if client.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    if client.has_extn("size"):
        options.append(f"SIZE={len(mail.octets)}")
    return options
