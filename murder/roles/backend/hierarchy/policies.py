"""Mail that goes by its age (`[expiry."NAME"]`): what the rules would do today, and the doing of it, turn by turn.

A mailbox is looked at page by page, and what is found there goes page by page, each in one change of the store: who stops
in between has done a part, and the next round does the rest. What moves to another server just then waits for it. What
a rule has sent to an archive is for the next round, too: nothing goes two steps at once, of which the first alone was shown.
"""

import re
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from murder.api.store import Mailbox
from murder.config.expiry import ExpiryRule
from murder.errors import Refusal
from murder.model.entry import MailboxEntry
from murder.model.flag import FLAGGED, SEEN
from murder.model.message import Message, Uid
from murder.model.name import (
    MailboxName,
    Namespace,
    display,
    inbox_of,
    is_deleted,
    is_non_imap,
    owner_of,
)
from murder.model.query.listmatch import compile_pattern
from murder.net.turns import Turn, in_turns
from murder.roles.backend.hierarchy.mailboxes import Mailboxes
from murder.roles.backend.records.annotations import Annotations
from murder.roles.backend.traced import Unattended, trace_copies, trace_expunge
from murder.wire import mutf7

PAGE: Final = 500
ARCHIVE: Final = "\\archive"


@dataclass(frozen=True, slots=True)
class Expired:
    """What one rule does, or would do, in one mailbox. `problem`: why it does nothing."""

    rule: str
    name: MailboxName
    messages: int = 0
    octets: int = 0
    target: MailboxName | None = None  # None: away
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    asks: ExpiryRule
    pattern: re.Pattern[bytes]


class _Arrived:
    """From which UID on a mailbox has what came there in this round. Of the archive that was noted last: an owner has one,
    and the list has an owner's mailboxes together."""

    def __init__(self) -> None:
        self._name: MailboxName | None = None
        self._first: Uid | None = None

    def note(self, name: MailboxName, uids: Collection[Uid]) -> None:
        if name != self._name:
            self._name, self._first = name, None
        if uids and self._first is None:
            self._first = min(uids)

    def end(self, name: MailboxName) -> Uid | None:
        return self._first if name == self._name else None


class Policies:
    """All rules of a backend."""

    def __init__(
        self,
        rules: Mapping[str, ExpiryRule],
        namespace: Namespace,
        mailboxes: Mailboxes,
        annotations: Annotations,
    ) -> None:
        separator = namespace.separator
        self._rules = [
            _Rule(name, rule, compile_pattern(_octets_of(rule.mailboxes), separator))
            for name, rule in rules.items()
        ]
        self._namespace = namespace
        self._mailboxes = mailboxes
        self._annotations = annotations

    @property
    def has_rules(self) -> bool:
        return bool(self._rules)

    async def apply(
        self, now: datetime, *, acts: bool, by: Unattended | None = None
    ) -> AsyncIterator[Expired]:
        """What the rules find in each mailbox, done if `acts`; only where there is something, or a problem. `by`: as whom
        the mail log has it; the rule is added."""
        turn, arrived = Turn(), _Arrived()
        for entry in self._mailboxes.list.walk() if self._rules else ():
            if turn.is_over:
                await turn.rest()
            planned = None if acts else set[Uid]()
            for rule in self._rules:
                if self._is_meant(rule, entry):
                    doer = by and replace(by, facts={**by.facts, "rule": rule.name})
                    expired = await self._apply(rule, entry.name, now, doer, planned, arrived)
                    if expired.messages or expired.problem:
                        yield expired

    def _is_meant(self, rule: _Rule, entry: MailboxEntry) -> bool:
        name = entry.name
        if not entry.is_active or is_deleted(name) or is_non_imap(name):
            return False
        if not rule.pattern.fullmatch(self._namespace.external(name, "")):
            return False
        wanted = rule.asks.special_use.lower()
        return not wanted or wanted in self._uses(name)

    def _uses(self, name: MailboxName) -> Sequence[str]:
        """What it is to its owner."""
        return [use.lower() for use in self._annotations.special_uses(name, owner_of(name) or "")]

    async def _archive_of(self, name: MailboxName) -> MailboxName | None:
        owner = owner_of(name)
        if owner is None:
            return None
        async for head in in_turns(self._mailboxes.below(inbox_of(owner))):
            if ARCHIVE in self._uses(head.name):
                return head.name
        return None

    async def _apply(
        self,
        rule: _Rule,
        name: MailboxName,
        now: datetime,
        doer: Unattended | None,
        planned: set[Uid] | None,
        arrived: "_Arrived",
    ) -> Expired:
        """`planned`: it is only shown, without messages that rules before it are shown to take; those of this one come to
        them."""
        target = None
        if rule.asks.action == "archive":
            target = await self._archive_of(name)
            if target is None:
                return Expired(rule.name, name, problem="there is no \\Archive of its owner here")
            if target == name:
                return Expired(rule.name, name)
        before = now - timedelta(days=rule.asks.after_days)
        store, reader = self._mailboxes.store, owner_of(name) or ""
        messages = octets = 0
        problem = ""
        try:
            mailbox = await store.open(name, reader)
            try:
                into = await store.open(target, reader) if target is not None else None
                try:
                    async for page in _old(mailbox, rule.asks, before, arrived.end(name)):
                        uids = [message.uid for message in page]
                        if planned is None:
                            done = await _act(mailbox, uids, into, doer, arrived)
                        else:
                            done = frozenset(uids) - planned
                            planned |= done
                        gone = [message for message in page if message.uid in done]
                        messages += len(gone)
                        octets += sum(message.size for message in gone)
                finally:
                    if into is not None:
                        into.close()
            finally:
                mailbox.close()
        except Refusal as refusal:
            problem = refusal.text
        return Expired(rule.name, name, messages, octets, target, problem)


def _octets_of(pattern: str) -> bytes:
    """As names are written on the wire."""
    return pattern.encode() if pattern.isascii() else mutf7.encode(pattern)


async def _old(
    mailbox: Mailbox, rule: ExpiryRule, before: datetime, end: Uid | None
) -> AsyncIterator[Sequence[Message]]:
    """Those that the rule means, page by page. `end`: only UIDs below it."""
    uids, turn = await mailbox.uids(), Turn()
    if end is not None:
        uids = uids[: bisect_left(uids, end)]
    for start in range(0, len(uids), PAGE):
        page = await mailbox.messages(uids[start : start + PAGE])
        old = [message for message in page if _is_old(message, rule, before)]
        if old:
            yield old
        if turn.is_over:
            await turn.rest()


def _is_old(message: Message, rule: ExpiryRule, before: datetime) -> bool:
    at = message.save_date if rule.by == "saved" else message.internal_date
    if (at or message.internal_date) >= before:
        return False
    if rule.keep_flagged and FLAGGED in message.flags:
        return False
    return not (rule.keep_unseen and SEEN not in message.flags)


async def _act(
    mailbox: Mailbox,
    uids: Sequence[Uid],
    into: Mailbox | None,
    doer: Unattended | None,
    arrived: "_Arrived",
) -> frozenset[Uid]:
    """Which of them have gone; the mail log has where they went."""
    if into is None:
        gone = frozenset(await mailbox.expunge(uids))
        if doer is not None:
            await trace_expunge(doer, mailbox, sorted(gone))
        return gone
    moved = await mailbox.move(uids, into)
    arrived.note(into.name, moved.values())
    if doer is not None:
        await trace_copies(doer, mailbox, into, moved, moving=True)
    return frozenset(moved)


def told(expired: Expired, called: Callable[[MailboxName], str] = display) -> dict[str, object]:
    """For the log; and for the audit trail, which has names as they are `called` by administrators."""
    target = {} if expired.target is None else {"target": called(expired.target)}
    return {
        "rule": expired.rule,
        "mailbox": called(expired.name),
        "messages": expired.messages,
        "octets": expired.octets,
        **target,
    }


def today() -> datetime:
    return datetime.now(UTC)
