"""NOOP, CHECK, ENABLE, NAMESPACE (RFC 3501 §6.1.2 and §6.4.1, RFC 5161, RFC 2342)."""

from murder.errors import Code, Refusal
from murder.roles.backend.imap.dialogue import BackendImap
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.enable import ENABLEABLE, parse_enable
from murder.wire.imap.response import untagged
from murder.wire.token import Scanner


def run_noop(dialogue: BackendImap, command: Command) -> Running:
    """Also CHECK: what is answered OK is durable always."""
    Scanner(command.octets, command.start).end()
    return dialogue.conclude(command, look=True)


def run_enable(dialogue: BackendImap, command: Command) -> Running:
    """ENABLE (RFC 5161): what is not known is passed over."""
    asked = parse_enable(Scanner(command.octets, command.start))
    new = [word for word in asked if word in ENABLEABLE and word not in dialogue.enabled]
    dialogue.enabled |= frozenset(new)
    dialogue.send(untagged(b" ".join([b"ENABLED", *(ENABLEABLE[word] for word in new)])))
    if b"QRESYNC" in new:
        dialogue.manner.qresync = True
    if {b"IMAP4REV2", b"UTF8=ACCEPT"} & set(new):
        dialogue.manner.utf8 = True
    if b"IMAP4REV2" in new:
        dialogue.manner.imap4rev2 = True
    if b"UIDONLY" in new:
        dialogue.manner.uid_only = True
    if {b"CONDSTORE", b"QRESYNC"} & set(new):
        dialogue.enable_condstore()
    return dialogue.conclude(command)


def run_unauthenticate(dialogue: BackendImap, command: Command) -> Running:
    """RFC 8437: back to the state before login, with nothing of the session left (a proxy takes it for the next user)."""
    Scanner(command.octets, command.start).end()
    if dialogue.user.is_piped:  # or the client could become another, by the proxy's certificate
        raise Refusal(Code.CANNOT, "Through this proxy nobody becomes another: connect again")
    dialogue.forget_login()
    dialogue.send_ok(command)
    return None
