"""A recipient is accepted: the mailbox that mail for an address goes into, and that there is room."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

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


def accept(
    backend: Backend, address: bytes, refers: Callable[[], bool]
) -> Addressee | Coroutine[Any, Any, Addressee]:
    """The folder behind `+` where it exists and takes mail, else INBOX; mostly there is nothing to wait for. `refers`:
    who is at home at another server is not unknown. Raises Refusal, and so MailboxFull; BadSyntax; UpstreamFailure."""
    recipient = parse_recipient(address)
    candidates = candidates_of(recipient, backend.namespace, domains=backend.domains)
    if backend.noticer is not None:
        return _accept_noticed(backend, address, candidates, refers)
    return _accept(backend, address, candidates, refers)


async def _accept_noticed(
    backend: Backend,
    address: bytes,
    candidates: Sequence[Candidate],
    refers: Callable[[], bool],
) -> Addressee:
    """Where others make mailboxes in the store."""
    for candidate in candidates:
        if candidate.inbox is not None:
            await backend.notice(candidate.inbox)
    accepted = _accept(backend, address, candidates, refers)
    return accepted if isinstance(accepted, Addressee) else await accepted


def _accept(
    backend: Backend,
    address: bytes,
    candidates: Sequence[Candidate],
    refers: Callable[[], bool],
) -> Addressee | Coroutine[Any, Any, Addressee]:
    try:
        mailbox = _chosen(backend.mailboxes, candidates)
    except Refusal as refusal:
        if refusal.code is Code.NONEXISTENT and backend.referrals is not None and refers():
            return _refuse_who_is_nowhere(backend, candidates, refusal)
        raise
    addressee = Addressee(mailbox, owner_of(mailbox), address)
    root = backend.quotas.root_of(mailbox)
    return addressee if root is None else _accept_below(backend, root, addressee)


async def _accept_below(backend: Backend, root: MailboxName, addressee: Addressee) -> Addressee:
    await backend.quotas.check_room_below(root, messages=1)
    return addressee


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


async def _refuse_who_is_nowhere(
    backend: Backend, candidates: Sequence[Candidate], refusal: Refusal
) -> Addressee:
    """Raises this Refusal, or another where one is at home at another server, UpstreamFailure where that cannot be known
    now: mail that came here by an old name is not to go back for that."""
    for candidate in candidates:
        home = candidate.inbox or candidate.folder
        if (
            home is not None
            and backend.referrals is not None
            and backend.mailboxes.find(home) is None
        ):
            if server := await backend.referrals.server_of_home(home):
                text = f"The mailbox is on the server {server}: deliver it there, or to a frontend"
                raise Refusal(Code.UNAVAILABLE, text)
    raise refusal
