"""LMTP at a backend: recipients are mailboxes of the list, the message goes into the store (RFC 2033, RFC 5321 §4.4).

250 is said for a recipient only when its copy is durable. `Delivered-To` is written for a single recipient: with more there
is one text for all, and none of them is told of the others.
"""

import functools
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from murder.errors import Code, Refusal
from murder.net.connection import Connection
from murder.roles.backend.delivery.addressee import Addressee, accept
from murder.roles.backend.delivery.arrival import Arrival
from murder.roles.backend.records.quota import MailboxFull
from murder.roles.backend.worker import BackendWorker
from murder.serve.lmtp import LmtpDialogue
from murder.serve.service import ClientService
from murder.wire.lmtp import Envelope, clean, reply

DELIVERED = reply(250, "2.1.5", "Ok")


class BackendLmtp(LmtpDialogue):
    """See the module."""

    def __init__(
        self, connection: Connection, service: ClientService, backend: BackendWorker
    ) -> None:
        super().__init__(connection, service)
        self.backend = backend.shared
        self.addressees: list[Addressee] = []
        self.backend.sessions.add(self)

    def receive(self, given: Envelope) -> bytes | Coroutine[Any, Any, bytes]:
        accepted = accept(self.backend, given.path, self._refers)
        if not isinstance(accepted, Addressee):
            return self._receive(accepted)
        self.addressees.append(accepted)
        return DELIVERED

    async def _receive(self, accepting: Coroutine[Any, Any, Addressee]) -> bytes:
        self.addressees.append(await accepting)
        return DELIVERED

    def _refers(self) -> bool:
        """Not a frontend, which is told that there is no such user here, and looks for itself."""
        return not self.backend.gate.is_proxy(self.connection)

    def reply_for(self, error: BaseException) -> bytes:
        if isinstance(error, MailboxFull):
            permanent = self.backend.config.lmtp_over_quota == "permanent"
            return reply(552 if permanent else 452, "5.2.2" if permanent else "4.2.2", error.text)
        if isinstance(error, Refusal) and error.code is Code.OVER_QUOTA:  # the disk is
            return reply(452, "4.3.1", error.text)
        return super().reply_for(error)

    async def begin_delivery(self) -> Arrival:
        arrival = Arrival(self, self.backend, self.addressees)
        try:
            await arrival.write(self.trace())
        except BaseException:
            arrival.abandon()
            raise
        return arrival

    def forget(self) -> None:
        self.addressees = []

    def ended(self) -> None:
        super().ended()
        self.backend.sessions.discard(self)

    def trace(self) -> bytes:
        """The fields that final delivery puts on top (RFC 5321 §4.4)."""
        assert self.envelope is not None
        to = b""
        if len(self.addressees) == 1:
            to = b"Delivered-To: %b\r\n" % self.addressees[0].address
        client = clean(self.peer_name.decode("utf-8", "replace")).replace("(", "[").encode()
        manner = b"LMTP" + b"S" * self.connection.is_tls + b"A" * (self.login is not None)
        return (
            b"Return-Path: <%b>\r\n%bReceived: from %b ([%b])\r\n\tby %b with %b\r\n\tid %b; %b\r\n"
        ) % (
            *(self.envelope.path, to),
            *(client, self.peer_address.encode(), self.service.server_name.encode(), manner),
            *(self.connection.cid.encode(), _date(int(time.time()))),
        )


@functools.lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    """As a header has it."""
    return format_datetime(datetime.fromtimestamp(second, UTC)).encode()
