"""The octets of one message and what is derived from them, each read once and only if asked for."""

from datetime import date

from murder.api.store import Mailbox
from murder.errors import Code, Refusal
from murder.model.fetch import BodyItem, Preview, SectionText
from murder.model.message import Message


class Reader:
    """One message during one FETCH."""

    def __init__(self, mailbox: Mailbox, message: Message) -> None:
        self._mailbox = mailbox
        self._message = message
        self._octets: memoryview | None = None

    async def octets(self) -> memoryview:
        """The whole message. Raises Refusal(EXPUNGE_ISSUED)."""
        if self._octets is None:
            self._octets = await self._mailbox.octets(self._message.uid)
        return self._octets

    async def section(self, item: BodyItem) -> memoryview | bytes | None:
        """The octets of a section, before `<partial>`; None where there is no such part."""
        octets = await self.octets()
        text = item.section.text
        if not item.section.part and text is SectionText.WHOLE:
            return octets
        raise Refusal(Code.CANNOT, "not yet")

    async def envelope(self) -> bytes:
        raise Refusal(Code.CANNOT, "not yet")

    async def structure(self, extended: bool) -> bytes:
        raise Refusal(Code.CANNOT, "not yet")

    async def preview(self, item: Preview) -> bytes:
        raise Refusal(Code.CANNOT, "not yet")

    def close(self) -> None:
        """Let the mapping go."""
        self._octets = None


class _Content:
    def header_has(self, field: str, text: str) -> bool:
        return False

    def body_has(self, text: str) -> bool:
        return False

    def text_has(self, text: str) -> bool:
        return False

    def sent_on(self) -> date | None:
        return None


async def read_content(mailbox: Mailbox, message: Message) -> _Content | None:
    """The searchable side of a message; None where it has just been expunged."""
    try:
        await mailbox.octets(message.uid)
    except Refusal as refusal:
        if refusal.code is Code.EXPUNGE_ISSUED:
            return None
        raise
    return _Content()
