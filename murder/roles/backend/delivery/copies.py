"""Copies of a message are put into mailboxes here, within their quotas, and once where duplicates are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from murder.api.store import AppendsOnce, Incoming, Mailbox, NewMessage, Once
from murder.log import Log
from murder.mime.section import select_fields
from murder.model.name import MailboxName, display, owner_of
from murder.roles.backend.messages.content import end_of_header
from murder.roles.backend.records.duplicates import key_of
from murder.roles.backend.shared import Backend
from murder.roles.backend.traced import place_of
from murder.wire.lmtp import clean

MAX_MESSAGE_ID_OCTETS: Final = 1000
LOOK_OCTETS: Final = 64 * 1024  # of the message, in which its Message-ID stands


@dataclass(frozen=True, slots=True)
class Copy:
    """Where a copy of the message is; no UID: it was there before."""

    mailbox: MailboxName
    mailbox_id: str
    uid: int | None
    place: str = ""  # backend.traced; "" where nobody wants to know

    def shown(self) -> dict[str, object]:
        """As JSON has it."""
        fields: dict[str, object] = {
            "mailbox": display(self.mailbox),
            "mailbox_id": self.mailbox_id,
        }
        if self.uid is None:
            return {**fields, "duplicate": True}
        return {**fields, "uid": self.uid, **({"place": self.place} if self.place else {})}


class Copies:
    """Of the message that came, for one of its recipients: those that are kept so far. `is_traced`: their places, too.
    `filtered` is what scripts or plugins said of it, for the mail log."""

    __slots__ = ("_backend", "_came", "_is_traced", "_log", "filtered", "kept")

    def __init__(self, backend: Backend, came: Incoming, log: Log, *, is_traced: bool) -> None:
        self._backend = backend
        self._came = came
        self._log = log
        self._is_traced = is_traced
        self.kept: list[Copy] = []
        self.filtered: Sequence[str] = ()

    async def add(self, name: MailboxName, message: NewMessage, once: Once | None = None) -> None:
        """A copy, or a version that a script has made of it. Raises Refusal, and so MailboxFull."""
        quotas = self._backend.quotas
        root = quotas.root_of(name)
        if root is None:
            await self._add(name, message, once)
        else:
            async with quotas.room_below(root, octets=message.incoming.size, messages=1):
                await self._add(name, message, once)

    async def _add(self, name: MailboxName, message: NewMessage, once: Once | None) -> None:
        mailbox = await self._backend.store.open(name, owner_of(name) or "")
        try:
            uid = await self._append_once(mailbox, message, once)
            is_traced = uid is not None and self._is_traced
            place = await place_of(mailbox, uid or 0) if is_traced else ""
            self.kept.append(Copy(name, mailbox.mailbox_id, uid, place))
        finally:
            mailbox.close()

    async def _append_once(
        self, mailbox: Mailbox, message: NewMessage, once: Once | None
    ) -> int | None:
        """Its UID; None where it is there already."""
        duplicates = self._backend.duplicates
        if duplicates is None or not (message_id := message_id_of(self._came)):
            return await self._append(mailbox, message, once)
        key = key_of(mailbox.mailbox_id, message_id)
        async with duplicates.alone(key):
            if await duplicates.has(key):
                self._log.info(
                    "message.duplicate",
                    mailbox=display(mailbox.name),
                    message_id=clean(message_id.decode("utf-8", "replace")),
                )
                return None
            uid = await self._append(mailbox, message, once)
            await duplicates.note(key)
            return uid

    async def _append(self, mailbox: Mailbox, message: NewMessage, once: Once | None) -> int | None:
        store = self._backend.store
        if once is not None and isinstance(store, AppendsOnce):
            return await store.append_once(mailbox, message, once)
        (uid,) = await mailbox.append([message])
        return uid

    async def add_made(self, name: MailboxName, message: NewMessage) -> None:
        """What is not the message that came: no copy of it, whatever its Message-ID. Raises as `add`."""
        backend = self._backend
        async with backend.quotas.room(name, octets=message.incoming.size, messages=1):
            mailbox = await backend.store.open(name, owner_of(name) or "")
            try:
                await mailbox.append([message])
            finally:
                mailbox.close()


def message_id_of(incoming: Incoming) -> bytes:
    """As its header has it; empty where it has none."""
    octets = incoming.octets()[:LOOK_OCTETS]
    header = bytes(octets[: end_of_header(octets)])
    field = select_fields(header, (b"Message-ID",), True)
    return b"".join(field.partition(b":")[2].split())[:MAX_MESSAGE_ID_OCTETS]
