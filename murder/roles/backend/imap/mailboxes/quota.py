"""GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208, RFC 2087), and the warning before a limit is reached."""

from murder.errors import Code, Refusal
from murder.model.name import MailboxName, inbox_of, is_below
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.records.quota import LIMITED, percent_of
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.mailbox import parse_mailbox
from murder.wire.imap.mailboxes.quota import (
    format_quota,
    format_quotaroot,
    parse_setquota,
)
from murder.wire.imap.response import status_line
from murder.wire.token import Scanner


def run_getquota(dialogue: BackendImap, command: Command) -> Running:
    """GETQUOTA (RFC 9208 §4.1.1), of a root that has a limit."""
    as_given = parse_mailbox(Scanner(command.octets, command.start))
    root = dialogue.name_of(as_given)
    login, quotas = dialogue.user, dialogue.backend.quotas
    if not login.is_admin and not is_below(root, inbox_of(login.user)):
        dialogue.backend.mailboxes.require(root, login, "r")
    if not quotas.limits_of(root):
        raise Refusal(Code.NONEXISTENT, "No such quota root")
    return _tell(dialogue, command, [root])


def run_getquotaroot(dialogue: BackendImap, command: Command) -> Running:
    """GETQUOTAROOT (RFC 9208 §4.1.2)."""
    as_given = parse_mailbox(Scanner(command.octets, command.start))
    name = dialogue.name_of(as_given)
    accessible = dialogue.backend.mailboxes.require(name, dialogue.user, "l")
    root = dialogue.backend.quotas.root_of(accessible.name)
    roots = [] if root is None else [root]
    dialogue.send(
        format_quotaroot(as_given, [dialogue.external(quota_root) for quota_root in roots])
    )
    return _tell(dialogue, command, roots)


async def _tell(dialogue: BackendImap, command: Command, roots: list[MailboxName]) -> None:
    for root in roots:
        usages = await dialogue.backend.quotas.usages(root)
        dialogue.send(format_quota(dialogue.external(root), usages))
    await dialogue.finish(command)


def run_setquota(dialogue: BackendImap, command: Command) -> Running:
    """SETQUOTA (RFC 9208 §4.1.3), for administrators."""
    return _set(dialogue, command)


async def _set(dialogue: BackendImap, command: Command) -> None:
    request = await arguments(command, parse_setquota)
    if not dialogue.user.is_admin:
        raise Refusal(Code.NO_PERMISSION, "Only an administrator sets limits")
    root = dialogue.name_of(request.root)
    dialogue.backend.mailboxes.look(root, dialogue.user)
    limits = dict(request.limits)
    unknown = [resource.value for resource in limits if resource not in LIMITED]
    if unknown:
        raise Refusal(Code.CANNOT, f"{unknown[0]} is not limited here")
    await dialogue.backend.quotas.set_limits(root, limits)
    usages = await dialogue.backend.quotas.usages(root)
    dialogue.send(format_quota(dialogue.external(root), usages))
    await dialogue.finish(command)


async def quota_warning(
    dialogue: BackendImap, name: MailboxName, octets: int = 0, messages: int = 0
) -> bytes:
    """RFC 9208 §4.3.2: an untagged NO where little is left at the mailbox's root, now that so much has been added; else
    nothing."""
    quotas, percent = dialogue.backend.quotas, dialogue.backend.config.quota_warning_percent
    usage = await quotas.fullest(name, octets, messages) if percent else None
    if usage is None or percent_of(usage) < percent:
        return b""
    text = f"{percent_of(usage)}% of the quota is used ({usage.resource.value} {usage.used} of {usage.limit})"
    return status_line(b"*", b"NO", text, b"OVERQUOTA")
