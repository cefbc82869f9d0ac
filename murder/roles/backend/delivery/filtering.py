"""What becomes of a message that arrives: the filters of plugins asked, and their actions as mailboxes.

No mail is lost for a filter's sake: one that fails, or takes too long, has the sender try again.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from murder.api.delivery import (
    Action,
    Arriving,
    DeliveryFilter,
    Discard,
    FileInto,
    Keep,
    Redirect,
    Reject,
)
from murder.errors import BadSyntax, Code, Misuse, Refusal, UpstreamFailure
from murder.log import Log
from murder.model.name import MailboxName, check_new_name, display, is_deleted
from murder.roles.backend.scripts.rejecting import Rejected
from murder.roles.backend.shared import Backend
from murder.wire import mutf7
from murder.wire.imap.flag import parse_flag_list
from murder.wire.token import Scanner

DECIDE_S: Final = 30.0  # a mail server waits ten minutes for its answer (RFC 5321 §4.5.3.2.6)
MAX_ACTIONS: Final = 100  # of one message: as many copies at most
LATER: Final = "A filter of this mailbox is not available now, try again later"
NO_WAY: Final = "A filter redirects this message, and here only users' scripts do; try again later"


@dataclass(frozen=True, slots=True)
class Target:
    """A mailbox that gets a copy, with these flags."""

    mailbox: MailboxName
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Decided:
    """Where copies go, each mailbox once: nowhere where it is discarded. `words`: what was said, for the logs."""

    targets: Sequence[Target]
    words: Sequence[str]


async def decided_by_plugins(backend: Backend, message: Arriving, log: Log) -> Decided | None:
    """None where none of them decides. Raises Rejected, Refusal."""
    actions = await _decided(backend.filters, message, log)
    if actions is None:
        return None
    flags_by_name: dict[MailboxName, frozenset[str]] = {}
    for action in actions:
        match action:
            case Keep(flags=flags):
                name = message.mailbox
            case FileInto(flags=flags):
                name = await _filed(backend, message, action, log)
            case Reject(text=text):
                raise Rejected(Code.NO_PERMISSION, text)
            case Redirect():
                raise Refusal(Code.UNAVAILABLE, NO_WAY)
            case Discard():
                continue
        flags_by_name[name] = flags_by_name.get(name, frozenset()) | flags
    words = [type(action).__name__.lower() for action in actions]
    log.info(
        "message.filtered",
        mailbox=display(message.mailbox),
        actions=words,
        filed=[display(name) for name in flags_by_name if name != message.mailbox],
    )
    return Decided([Target(name, flags) for name, flags in flags_by_name.items()], words)


async def _decided(
    filters: Sequence[tuple[str, DeliveryFilter]], message: Arriving, log: Log
) -> Sequence[Action] | None:
    """What the first filter says that says anything."""
    for name, judge in filters:
        try:
            async with asyncio.timeout(DECIDE_S):
                actions = await judge.decide(message)
            if actions is not None:
                return _checked(actions)
        except Refusal:
            raise
        except UpstreamFailure as error:
            log.warning("upstream.failed", plugin=name, backend=error.server, kind=error.kind.value)
            raise Refusal(Code.UNAVAILABLE, LATER) from error
        except Exception as error:
            log.error("plugin.failed", plugin=name, hook="decide", exc_info=error)
            raise Refusal(Code.UNAVAILABLE, LATER) from error
    return None


def _checked(actions: Sequence[Action]) -> Sequence[Action]:
    """Raises Misuse for what cannot be carried out."""
    checked: list[Action] = []
    for action in actions:
        if isinstance(action, Keep | FileInto):
            action = replace(action, flags=_as_stored(action.flags))
        elif not isinstance(action, Discard | Reject | Redirect):
            raise Misuse(f"{action!r} is not an action of a filter")
        checked.append(action)
    if not checked:
        raise Misuse("a filter says Discard() where nothing is to be done")
    if len(checked) > MAX_ACTIONS:
        raise Misuse(f"a filter says {MAX_ACTIONS} actions at most")
    if len(checked) > 1 and any(isinstance(action, Reject) for action in checked):
        raise Misuse("what is rejected goes nowhere else")
    return checked


def _as_stored(flags: Collection[str]) -> frozenset[str]:
    """Raises BadSyntax, UnicodeError for what no client could set."""
    if not flags:
        return frozenset()
    octets = f"({' '.join(flags)})".encode("ascii")
    scanner = Scanner(octets)
    parsed = parse_flag_list(scanner)
    scanner.end()
    return parsed


async def _filed(backend: Backend, message: Arriving, action: FileInto, log: Log) -> MailboxName:
    """The mailbox that a filter means, made where it is to be; else the one in which the message is kept."""
    try:
        external = mutf7.encode(action.mailbox)
        name = backend.namespace.internal(external, message.user or "")
        await _have(backend, message, name, create=action.create)
    except (Refusal, UpstreamFailure, BadSyntax) as error:
        log.warning(
            "message.not_filed",
            mailbox=display(message.mailbox),
            wanted=action.mailbox[:200],
            problem=str(error),
        )
        return message.mailbox
    return name


async def _have(backend: Backend, message: Arriving, name: MailboxName, *, create: bool) -> None:
    """Raises Refusal where it is not there, or not to be put into."""
    mailboxes = backend.mailboxes
    if is_deleted(name):
        raise Refusal(Code.NONEXISTENT, "it is deleted")
    if message.user is None:
        if not mailboxes.may_post(name):
            raise Refusal(Code.NO_PERMISSION, "it takes no mail from anybody")
        return
    login = await backend.gate.login_of(message.user)
    if create and mailboxes.find(name) is None:
        check_new_name(name)
        mailboxes.check_has_not_left(name)
        mailboxes.check_may_create(name, login)
        try:
            await backend.announcer.create(name, mailboxes.default_acl(name))
        except Refusal as refusal:
            if refusal.code is not Code.ALREADY_EXISTS:  # by another message, at the same time
                raise
    mailboxes.require(name, login, "i")
