"""What an IMAP URL names, as octets: for CATENATE (RFC 4469) and URLFETCH (RFC 4467) of messages on this backend.

A URL without a token is read with the client's own rights; one with a token (RFC 4467 §3) with those of the user who
gave it away, by whoever it was given to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.identity import Login
from murder.model.name import MailboxName
from murder.model.query.fetch import BodyItem, Form, Section, SectionText
from murder.model.url import ImapUrl, UrlAccess
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.messages.content import Reader
from murder.wire.url import parse_url

INTERNAL: Final = "INTERNAL"  # the mechanism of our tokens


async def octets_of_url(dialogue: BackendImap, raw_url: bytes) -> memoryview:
    """The octets of a message, a section or a part of it, of any mailbox that the client may read.

    Raises Refusal(BAD_URL) with the URL, whatever is wrong with it.
    """
    try:
        url = parse_url(raw_url)
        async with message_of(dialogue, url) as reader:
            return await section_of(reader, url)
    except (BadSyntax, Refusal) as error:
        raise bad_url(raw_url, error.text) from error


def bad_url(raw_url: bytes, why: str) -> Refusal:
    """RFC 4469 §5: the code tells which URL it was."""
    return Refusal(Code.BAD_URL, why, raw_url.decode("ascii", "replace"))


@asynccontextmanager
async def message_of(dialogue: BackendImap, url: ImapUrl) -> AsyncIterator[Reader]:
    """The message that a URL names, open for reading. Raises Refusal, BadSyntax."""
    if url.uid is None:
        raise Refusal(Code.CANNOT, "The URL names no message")
    login = await _reader_of(dialogue, url)
    name = _name_of(dialogue, url, login)
    if url.access is not None:
        check_token(dialogue, name, login.user, url.access)
    mailbox, _ = await dialogue.backend.mailboxes.open_for(name, login, "r")
    try:
        status = await mailbox.status()
        if url.uid_validity is not None and url.uid_validity != status.uid_validity:
            raise Refusal(Code.NONEXISTENT, "The URL is of an earlier mailbox of this name")
        messages = await mailbox.messages([url.uid])
        if not messages:
            raise Refusal(Code.NONEXISTENT, "There is no such message")
        reader = Reader(mailbox, messages[0])
        try:
            yield reader
        finally:
            reader.close()
    finally:
        mailbox.close()


async def _reader_of(dialogue: BackendImap, url: ImapUrl) -> Login:
    """With whose rights the message is read: the client's, or the user's who made the URL."""
    server = url.server
    if url.access is not None:
        if server is None or server.user is None or url.mailbox is None:
            raise BadSyntax("a URL with a token names server, user and mailbox")
        return await dialogue.backend.gate.login_of(server.user)
    if server is not None:
        if server.host.lower() != dialogue.backend.server_name.lower():
            raise Refusal(Code.CANNOT, "Only messages of this server can be put in")
        if server.user not in (None, dialogue.user.user):
            raise Refusal(Code.CANNOT, "The URL is another user's, and has no token")
    return dialogue.user


def _name_of(dialogue: BackendImap, url: ImapUrl, login: Login) -> MailboxName:
    if url.mailbox is not None:
        return dialogue.namespace.internal(url.mailbox, login.user)
    if dialogue.selected is None:
        raise Refusal(Code.CANNOT, "The URL names no mailbox, and none is selected")
    return dialogue.selected.name


def check_token(dialogue: BackendImap, name: MailboxName, owner: str, access: UrlAccess) -> None:
    """Whether this session may use a URL that its owner gave away (RFC 4467 §3). Raises BadSyntax."""
    if access.mechanism != INTERNAL:
        raise BadSyntax("the URL has no token of this server")
    if access.expire is not None and access.expire < datetime.now(UTC):
        raise BadSyntax("the URL has expired")
    user = dialogue.user.user
    if access.access == "user" and access.user != user:
        raise BadSyntax("the URL is for another user")
    if access.access == "submit" and user not in dialogue.backend.config.submitters:
        raise BadSyntax("the URL is for submission servers")
    if not dialogue.backend.url_keys.proves(name, owner, access.rump, access.token):
        raise BadSyntax("the URL's token is not valid")


async def section_of(reader: Reader, url: ImapUrl, form: Form = Form.BODY) -> memoryview:
    """The octets that a URL names of its message: a mapping of the store's, no copy. Raises Refusal."""
    section = url.section or Section()
    if form is Form.BINARY and section.text is not SectionText.WHOLE:
        raise Refusal(Code.CANNOT, "A header has no transfer encoding")
    octets = await reader.section(BodyItem(section, peek=True, form=form))
    if octets is None:
        raise Refusal(Code.NONEXISTENT, "The message has no such section")
    if url.partial is not None:
        first, most = url.partial
        octets = octets[first:] if most is None else octets[first : first + most]
    return memoryview(octets)
