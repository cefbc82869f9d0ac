"""SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS (RFC 4314)."""

from collections.abc import Callable
from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import (
    ADMINISTER,
    ALL_RIGHTS,
    MAX_ACL_OCTETS,
    OWNER_ALWAYS,
    Acl,
    Rights,
    expand_rights,
    format_acl,
    format_rights,
    parse_acl,
    parse_rights,
)
from murder.model.name import MailboxName, owner_of
from murder.model.rights import with_old_rights
from murder.roles.backend.changes.news import Kind
from murder.roles.backend.imap.dialogue import BackendImap
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes import acl as wire
from murder.wire.imap.mailboxes.acl import RightsChange
from murder.wire.imap.mailboxes.mailbox import parse_mailbox
from murder.wire.token import Scanner

# rights that a site may define; kept and shown, they allow nothing here
DIGITS: Final = "0123456789"


def run_setacl(dialogue: BackendImap, command: Command) -> Running:
    """SETACL (RFC 4314 §3.1). Rights that nobody knows are BAD, as the RFC wants it."""
    request = wire.parse_setacl(Scanner(command.octets, command.start))
    try:
        rights = parse_rights(request.rights)
    except Refusal as refusal:  # RFC 4314 §3.1: BAD
        raise BadSyntax(refusal.text) from refusal

    def change(acl: Acl) -> Acl:
        present = acl.entries.get(request.identifier, frozenset())
        match request.change:
            case RightsChange.ADD:
                return acl.changed(request.identifier, present | rights)
            case RightsChange.REMOVE:
                return acl.changed(request.identifier, _without(present, rights))
            case RightsChange.REPLACE:
                return acl.changed(request.identifier, rights)

    return _change(dialogue, command, dialogue.name_of(request.mailbox), change)


def _without(present: Rights, rights: Rights) -> Rights:
    """Taking `c` or `d` away takes what they stand for; they go themselves when nothing of that is left."""
    left = present - expand_rights(rights)
    return left - frozenset("cd")


def run_deleteacl(dialogue: BackendImap, command: Command) -> Running:
    """DELETEACL (RFC 4314 §3.2): OK also for an identifier that is not there."""
    request = wire.parse_deleteacl(Scanner(command.octets, command.start))

    def change(acl: Acl) -> Acl:
        return acl.changed(request.identifier, frozenset())

    return _change(dialogue, command, dialogue.name_of(request.mailbox), change)


async def _change(
    dialogue: BackendImap, command: Command, name: MailboxName, change: Callable[[Acl], Acl]
) -> None:
    dialogue.backend.mailboxes.require(name, dialogue.user, ADMINISTER)

    most = dialogue.backend.config.max_acl_identifiers

    def bounded(acl: Acl) -> Acl:
        changed = change(acl)
        is_longer = len(changed.entries) > max(len(acl.entries), most)
        if is_longer and not dialogue.user.is_admin:
            raise Refusal(Code.LIMIT, f"An access list may have at most {most} identifiers")
        if len(format_acl(changed)) > MAX_ACL_OCTETS:
            raise Refusal(Code.LIMIT, f"An access list may have {MAX_ACL_OCTETS} octets")
        return changed

    with dialogue.causing((Kind.ACL, name)):
        await dialogue.backend.announcer.set_acl(name, bounded)
    await dialogue.finish(command)


def run_getacl(dialogue: BackendImap, command: Command) -> Running:
    """GETACL (RFC 4314 §3.3), for who has the right `a`."""
    external = parse_mailbox(Scanner(command.octets, command.start))
    name = dialogue.name_of(external)
    mailbox = dialogue.backend.mailboxes.require(name, dialogue.user, ADMINISTER)
    entries = parse_acl(mailbox.entry.raw_acl).entries
    identifiers = {
        identifier: format_rights(with_old_rights(rights)) for identifier, rights in entries.items()
    }
    dialogue.send(wire.format_acl(external, identifiers))
    return dialogue.conclude(command)


def run_listrights(dialogue: BackendImap, command: Command) -> Running:
    """LISTRIGHTS (RFC 4314 §3.4): each right may be granted alone."""
    request = wire.parse_listrights(Scanner(command.octets, command.start))
    name = dialogue.name_of(request.mailbox)
    dialogue.backend.mailboxes.require(name, dialogue.user, ADMINISTER)
    always = OWNER_ALWAYS if request.identifier == owner_of(name) else frozenset()
    optional = [right for right in ALL_RIGHTS + DIGITS if right not in always]
    dialogue.send(
        wire.format_listrights(request.mailbox, request.identifier, format_rights(always), optional)
    )
    return dialogue.conclude(command)


def run_myrights(dialogue: BackendImap, command: Command) -> Running:
    """MYRIGHTS (RFC 4314 §3.5), for who may look the mailbox up."""
    external = parse_mailbox(Scanner(command.octets, command.start))
    mailbox = dialogue.backend.mailboxes.look(dialogue.name_of(external), dialogue.user)
    dialogue.send(wire.format_myrights(external, format_rights(with_old_rights(mailbox.rights))))
    return dialogue.conclude(command)
