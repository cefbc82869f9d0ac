"""The IMAP commands before and at login, alike in both roles: CAPABILITY, ID, STARTTLS, LOGIN, AUTHENTICATE, LOGOUT.

RFC 3501 §6.1 and §6.2, RFC 4959 (SASL-IR), RFC 2971 (ID). `LOGIN_ROWS` are their rows in each role's table.
"""

from typing import Final

from murder import __version__
from murder.auth.gate import NotAdmitted, as_given
from murder.errors import BadSyntax, Code, Refusal
from murder.model.identity import Login
from murder.model.sasl import PlainCredentials
from murder.serve.client import Running
from murder.serve.imap import (
    ANY,
    AUTHENTICATED,
    NO_FIELDS,
    NOT_AUTHENTICATED,
    ImapDialogue,
    Row,
    Table,
)
from murder.wire.base64line import decode_base64
from murder.wire.imap.command import Command
from murder.wire.imap.id import parse_id
from murder.wire.imap.response import bye, status_for, status_line, untagged
from murder.wire.token import Scanner, nstring


def run_capability(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 3501 §6.1.1; what is offered depends on TLS, the login and who asks."""
    Scanner(command.octets, command.start).end()
    dialogue.send(
        untagged(b"CAPABILITY " + dialogue.capability_words(asked=True))
        + status_line(command.tag, b"OK", "Completed")
    )
    return None


def run_reconstruct(dialogue: ImapDialogue, command: Command) -> Running:
    """Cyrus' command (cyradm has it), which mends one mailbox. Here whole stores are checked and mended, by operators."""
    raise Refusal(Code.CANNOT, "Use `murder ctl store check` and `murder ctl store repair`")


def run_logout(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 3501 §6.1.3: BYE, then OK."""
    dialogue.send(bye("Logging out") + status_line(command.tag, b"OK", "Completed"))
    dialogue.session.ended()
    dialogue.close()
    return None


def run_id(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 2971. A proxy tells its client's address and session here (fields as Dovecot names them)."""
    client = parse_id(Scanner(command.octets, command.start))
    if dialogue.login is None or not dialogue.login.is_piped:  # else it is no proxy that says it
        dialogue.take_client_id(client)
        spans = dialogue.service.spans
        if spans is not None and spans.are_wanted:
            dialogue.note_session(spans)
    fields = {"name": "murder", "version": __version__}
    said = b" ".join(nstring(word.encode()) for pair in fields.items() for word in pair)
    dialogue.send(untagged(b"ID (" + said + b")") + status_line(command.tag, b"OK", "Completed"))
    return None


def run_starttls(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 3501 §6.2.1. Whatever was sent in plain text behind it is thrown away."""
    Scanner(command.octets, command.start).end()
    if dialogue.service.tls is None:
        raise Refusal(Code.CANNOT, "This server has no certificate")
    if dialogue.connection.is_tls:
        raise BadSyntax("TLS is active already")
    return _starttls(dialogue, command)


async def _starttls(dialogue: ImapDialogue, command: Command) -> None:
    await dialogue.switch_to_tls(status_line(command.tag, b"OK", "Begin TLS now"))
    dialogue.client_id = NO_FIELDS  # RFC 3501 §6.2.1: forget what was said before


def run_login(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 3501 §6.2.3. The gate refuses it without TLS, unless the site allows it."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    user = scanner.login_name()
    scanner.space()
    password = scanner.astring()
    scanner.end()
    return _login(dialogue, command, user.decode("utf-8", "surrogateescape"), password)


async def _login(dialogue: ImapDialogue, command: Command, user: str, password: bytes) -> None:
    gate = dialogue.service.gate
    try:
        given = PlainCredentials(user, "", password, "LOGIN")
        login = await gate.admit(given, dialogue.connection, dialogue.protocol)
    except Refusal as refusal:
        _refuse_login(dialogue, command, as_given(user), refusal)
        return
    await let_in(dialogue, command, login)


async def let_in(dialogue: ImapDialogue, command: Command, login: Login) -> None:
    """Whoever has proven who they are, by this command; who has too many connections is told, and goes;
    who is not served here, as one who is referred elsewhere, may go on."""
    if dialogue.is_for_within(login):
        client = dialogue.client_id
        heir = dialogue.pass_on()
        heir.client_id = client
        heir.go_on(command, let_in(heir, command, login))
        return
    try:
        await dialogue.enter(command, login)
    except Refusal as refusal:
        dialogue.log_not_served(login, refusal)
        if refusal.code is not Code.LIMIT:
            raise
        dialogue.send_status(command, status_for(refusal))
        dialogue.send(bye("Too many connections of one user", b"UNAVAILABLE"))
        dialogue.close()


def _refuse_login(dialogue: ImapDialogue, command: Command, user: str, refusal: Refusal) -> None:
    is_worn_out = dialogue.login_failed(user, refusal.code.value)
    dialogue.send_status(command, status_for(refusal))
    if is_worn_out:
        dialogue.send(bye("Too many failed logins"))
        dialogue.close()


def run_authenticate(dialogue: ImapDialogue, command: Command) -> Running:
    """RFC 3501 §6.2.2, with an initial response (RFC 4959)."""
    scanner = Scanner(command.octets, command.start)
    scanner.space()
    mechanism = scanner.word().decode()
    initial = None
    if not scanner.at_end():
        scanner.space()
        given = scanner.rest().rstrip(b" \t")
        initial = b"" if given == b"=" else decode_base64(given)
    scanner.end()
    return _authenticate(dialogue, command, mechanism, initial)


async def _authenticate(
    dialogue: ImapDialogue, command: Command, mechanism: str, initial: bytes | None
) -> None:
    try:
        login = await dialogue.sasl(mechanism, initial)
    except NotAdmitted as refusal:
        _refuse_login(dialogue, command, refusal.user, refusal)
        return
    await let_in(dialogue, command, login)


LOGIN_ROWS: Final[Table] = {
    b"CAPABILITY": Row(ANY, run_capability),
    b"RECONSTRUCT": Row(AUTHENTICATED, run_reconstruct),
    b"LOGOUT": Row(ANY, run_logout),
    b"ID": Row(ANY, run_id),
    b"STARTTLS": Row(NOT_AUTHENTICATED, run_starttls),
    b"LOGIN": Row(NOT_AUTHENTICATED, run_login),
    b"AUTHENTICATE": Row(NOT_AUTHENTICATED, run_authenticate),
}
