"""A recipient is accepted: the mailbox that mail for an address goes into, and that there is room."""

from collections.abc import Sequence
from dataclasses import dataclass

from murder.errors import Code, Refusal
from murder.model.name import MailboxName, owner_of
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.shared import Backend
from murder.serve.addressing import Candidate, candidates_of
from murder.wire.lmtp import parse_recipient

UNKNOWN = "No such user here"


@dataclass(frozen=True, slots=True)
class Addressee:
    """An accepted recipient: where the copy goes, whose that is (None: nobody's), and how it was addressed."""

    mailbox: MailboxName
    owner: str | None
    address: bytes


async def accept(backend: Backend, address: bytes) -> Addressee:
    """The folder behind `+` where it exists and takes mail, else INBOX. Raises Refusal, and so MailboxFull; BadSyntax."""
    recipient = parse_recipient(address)
    candidates = candidates_of(recipient, backend.namespace, domains=backend.domains)
    for candidate in candidates:
        if candidate.inbox is not None:
            await backend.notice(candidate.inbox)
    mailboxes = backend.mailboxes
    for candidate in candidates:
        if candidate.folder is not None and mailboxes.may_post(candidate.folder):
            mailbox = candidate.folder
            break
        if candidate.inbox is not None and mailboxes.find(candidate.inbox) is not None:
            mailbox = candidate.inbox
            break
    else:
        raise _why_not(mailboxes, candidates)
    await backend.quotas.check_room(mailbox, messages=1)
    return Addressee(mailbox, owner_of(mailbox), address)


def _why_not(mailboxes: Mailboxes, candidates: Sequence[Candidate]) -> Refusal:
    """Where none of them takes mail. Raises Refusal(UNAVAILABLE) for what is elsewhere, or to come."""
    for candidate in candidates:
        home = candidate.inbox or candidate.folder
        if home is None:
            continue
        mailboxes.check_has_not_left(home)
        if mailboxes.find(home) is not None:
            return Refusal(Code.NO_PERMISSION, "Nobody may post there")
    return Refusal(Code.NONEXISTENT, UNKNOWN)
