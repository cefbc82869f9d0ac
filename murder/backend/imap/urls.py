"""What an IMAP URL names, as octets: for CATENATE (RFC 4469) of messages on this backend (RFC 5092)."""

from murder.backend.imap.content import Reader
from murder.backend.imap.dialogue import BackendImap
from murder.errors import BadSyntax, Code, Refusal
from murder.model.fetch import BodyItem, Section
from murder.model.message import Message
from murder.model.url import ImapUrl
from murder.wire.url import parse_url


async def octets_of_url(dialogue: BackendImap, raw_url: bytes) -> bytes:
    """The octets of a message, a section or a part of it, of any mailbox that the client may read.

    Raises Refusal(BAD_URL) with the URL, whatever is wrong with it.
    """
    try:
        url = parse_url(raw_url)
        return await _octets(dialogue, url)
    except (BadSyntax, Refusal) as error:
        raise bad_url(raw_url, error.text) from error


def bad_url(raw_url: bytes, why: str) -> Refusal:
    """RFC 4469 §5: the code tells which URL it was."""
    return Refusal(Code.BAD_URL, why, raw_url.decode("ascii", "replace"))


async def _octets(dialogue: BackendImap, url: ImapUrl) -> bytes:
    if url.server is not None and url.server.host != dialogue.backend.server_name:
        raise Refusal(Code.CANNOT, "Only messages of this server can be put in")
    if url.uid is None:
        raise Refusal(Code.CANNOT, "The URL names no message")
    mailboxes = dialogue.backend.mailboxes
    if url.mailbox is not None:
        name = dialogue.backend.namespace.internal(url.mailbox, dialogue.user.user)
    elif dialogue.selected is not None:
        name = dialogue.selected.name
    else:
        raise Refusal(Code.CANNOT, "The URL names no mailbox, and none is selected")
    mailbox, _ = await mailboxes.open_for(name, dialogue.user, "r")
    try:
        status = await mailbox.status()
        if url.uid_validity is not None and url.uid_validity != status.uid_validity:
            raise Refusal(Code.NONEXISTENT, "The URL is of an earlier mailbox of this name")
        messages = await mailbox.messages([url.uid])
        if not messages:
            raise Refusal(Code.NONEXISTENT, "There is no such message")
        return await _section(Reader(mailbox, messages[0]), messages[0], url)
    finally:
        mailbox.close()


async def _section(reader: Reader, message: Message, url: ImapUrl) -> bytes:
    try:
        octets = await reader.section(BodyItem(url.section or Section(), peek=True))
        if octets is None:
            raise Refusal(Code.NONEXISTENT, f"Message {message.uid} has no such section")
        if url.partial is not None:
            first, most = url.partial
            octets = octets[first:] if most is None else octets[first : first + most]
        return bytes(octets)
    finally:
        reader.close()
