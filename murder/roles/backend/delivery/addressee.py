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


async def accept(backend: Backend, address: bytes, *, refers: bool = False) -> Addressee:
    """The folder behind `+` where it exists and takes mail, else INBOX. `refers`: who is at home at another server is not
    unknown. Raises Refusal, and so MailboxFull; BadSyntax; UpstreamFailure."""
    recipient = parse_recipient(address)
    candidates = candidates_of(recipient, backend.namespace, domains=backend.domains)
    for candidate in candidates:
        if candidate.inbox is not None:
            await backend.notice(candidate.inbox)
    try:
        mailbox = _chosen(backend.mailboxes, candidates)
    except Refusal as refusal:
        if refers and refusal.code is Code.NONEXISTENT:
            await _check_is_nowhere(backend, candidates)
        raise
    await backend.quotas.check_room(mailbox, messages=1)
    return Addressee(mailbox, owner_of(mailbox), address)


def _chosen(mailboxes: Mailboxes, candidates: Sequence[Candidate]) -> MailboxName:
    for candidate in candidates:
        for name in (candidate.folder, candidate.inbox):
            if name is not None and mailboxes.may_post(name):
                return name
    for candidate in candidates:
        home = candidate.inbox or candidate.folder
        if home is not None:
            mailboxes.check_takes_mail(home)
    raise Refusal(Code.NONEXISTENT, UNKNOWN)


async def _check_is_nowhere(backend: Backend, candidates: Sequence[Candidate]) -> None:
    """Raises Refusal where one is at home at another server, UpstreamFailure where that cannot be known now: mail that came
    here by an old name is not to go back for that."""
    if backend.referrals is None:
        return
    for candidate in candidates:
        home = candidate.inbox or candidate.folder
        if home is not None and backend.mailboxes.find(home) is None:
            if server := await backend.referrals.server_of_home(home):
                text = f"The mailbox is on the server {server}: deliver it there, or to a frontend"
                raise Refusal(Code.UNAVAILABLE, text)
