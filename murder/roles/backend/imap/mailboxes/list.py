"""LIST and LSUB at a backend, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 §6.3.6 to §6.3.9, RFC 5819, RFC 8440, RFC 9590)."""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final

from murder.errors import Code, Refusal
from murder.model.acl import format_rights
from murder.model.name import MailboxName, check_readable, inbox_of, owner_of, split_domain
from murder.model.query.listing import MOST_NODES, ListQuery, ListRow, Node
from murder.model.rights import with_old_rights
from murder.net.turns import Turn
from murder.roles.backend.changes.news import Kind, News
from murder.roles.backend.hierarchy.limits import check_room_for_subscription
from murder.roles.backend.imap.answers import LIST, Listed, Tree, Who, plain, who_of
from murder.roles.backend.imap.dialogue import BackendImap
from murder.roles.backend.imap.mailboxes.metadata import entries_of
from murder.roles.backend.imap.mailboxes.status import format_status_of
from murder.serve.client import Running
from murder.serve.list import ListAnswer, read_list, tell_subscribed
from murder.wire.imap.command import Command
from murder.wire.imap.mailboxes.acl import format_myrights
from murder.wire.imap.mailboxes.list import ListRequest, Return
from murder.wire.imap.mailboxes.mailbox import parse_mailbox
from murder.wire.imap.mailboxes.metadata import format_metadata
from murder.wire.token import Scanner

BESIDE: Final = frozenset({Return.STATUS, Return.MYRIGHTS, Return.METADATA})


def run_list(dialogue: BackendImap, command: Command) -> Running:
    """LIST (RFC 3501 §6.3.8, RFC 5258): of the mailboxes that are here."""
    return _list(dialogue, command, b"LIST")


def run_rlist(dialogue: BackendImap, command: Command) -> Running:
    """RFC 2193 §3. Without remote mailboxes: they are in a frontend's LIST, and here a referral tells where they are."""
    return run_list(dialogue, command)


def run_rlsub(dialogue: BackendImap, command: Command) -> Running:
    """RLSUB (RFC 2193): as LSUB, for a client that can follow referrals."""
    return run_lsub(dialogue, command)


def run_xlist(dialogue: BackendImap, command: Command) -> Running:
    """What LIST was before RFC 6154, as Gmail made it and Cyrus has it: special uses, and `\\Inbox`."""
    return _list(dialogue, command, b"XLIST")


async def _list(dialogue: BackendImap, command: Command, word: bytes) -> None:
    request = await read_list(dialogue, command, word)
    if request is not None:
        answers, stamp = dialogue.backend.answers, dialogue.backend.mailboxes.list.stamp_now()
        answer = _Answer(dialogue, request, word)
        who = who_of(dialogue.user, dialogue.in_utf8)
        is_plain = word == b"LIST" and not (
            request.extended or request.selection or request.returns
        )
        known = tree_of(dialogue, who, stamp, answer.query) if is_plain else None
        if known is not None:
            dialogue.send(lines_of(dialogue, known, answer))
        else:
            is_all = is_plain and not request.reference and request.patterns[0] in (b"*", b"%")
            answer.nodes = [] if is_all else None
            await answer.tell()
            nodes = answer.nodes
            if nodes is not None and answer.whole is not None and _may_be_kept(nodes, answer.query):
                lines: list[bytes | None] = [None] * len(nodes)
                place = dialogue.namespace, answer.query.prefixes
                answers.trees.keep(who, Tree(stamp, *place, nodes, lines))
        key = plain(command, LIST)
        if key is not None and answer.whole is not None:
            answers.lists.keep((who, key), Listed(stamp, answer.whole))
    await dialogue.finish(command)


def _may_be_kept(nodes: Sequence[Node], query: ListQuery) -> bool:
    """Whether they are few, and of the user's own domain: of several domains, as some administrators see them, not every
    pattern looks at all (`ListQuery.prefixes`)."""
    own = split_domain(query.own)[0]
    names = [node.name for node in nodes if node.name is not None]
    return len(nodes) <= MOST_NODES and all(split_domain(name)[0] == own for name in names)


def told_anew(dialogue: BackendImap, who: Who, octets: bytes, stamp: int) -> bytes | None:
    """The answer to a LIST that is spelled as `PLAIN` has it, without waiting; None where all that there is is not known.
    Raises Refusal."""
    pattern = octets[len(b'LIST "" ') :].strip(b'"')
    answer = _Answer(dialogue, ListRequest(b"", (pattern,)), b"LIST")
    tree = tree_of(dialogue, who, stamp, answer.query)
    if tree is None:
        return None
    octets_told = lines_of(dialogue, tree, answer)
    dialogue.backend.answers.lists.keep((who, octets), Listed(stamp, octets_told))
    return octets_told


def tree_of(dialogue: BackendImap, who: Who, stamp: int, query: ListQuery) -> Tree | None:
    """What is kept of all that the user may see, if that is so still, and has all that the query asks for: who names another
    domain means mailboxes that no `*` shows."""
    tree = dialogue.backend.answers.trees.get(who)
    if tree is None or tree.stamp != stamp or dialogue.backend.noticer is not None:
        return None
    is_in_it = all(prefix.startswith(tree.prefixes) for prefix in query.prefixes)
    return tree if is_in_it and tree.namespace is dialogue.namespace else None


def lines_of(dialogue: BackendImap, tree: Tree, answer: ListAnswer) -> bytes:
    """What a plain LIST tells of it."""
    lines = tree.lines
    chosen: list[bytes] = []
    for at, node in answer.query.shown_of(tree.nodes):
        line = lines[at]
        if line is None:
            line = lines[at] = answer.line(node, dialogue.shown(node.external))
        chosen.append(line)
    answer.whole = b"".join(chosen)
    return answer.whole


class _Answer(ListAnswer):
    """What a backend knows."""

    def __init__(self, dialogue: BackendImap, request: ListRequest, word: bytes) -> None:
        super().__init__(dialogue, request, word)
        self._dialogue = dialogue

    async def prepare(self) -> None:
        dialogue = self._dialogue
        await dialogue.backend.notice(inbox_of(dialogue.user.user))
        if self.needs_subscribed:
            names = await dialogue.backend.store.subscriptions(dialogue.user.user)
            self.subscribed = frozenset(names)

    def visible(self) -> Iterator[MailboxName]:
        dialogue = self._dialogue
        rows = dialogue.backend.mailboxes.visible(dialogue.user, self.query.prefixes)
        return (entry.name for entry in rows)

    def uses(self, name: MailboxName) -> tuple[str, ...]:
        user = self._dialogue.user.user
        if owner_of(name) != user:
            return ()
        return self._dialogue.backend.annotations.special_uses(name, user)

    async def beside(self, rows: Sequence[ListRow]) -> Mapping[bytes, Sequence[bytes]]:
        if not self.request.returns & BESIDE:
            return {}
        answers = {}
        turn = Turn()
        for row in rows:
            if turn.is_over:
                await turn.rest()
            if row.exists and row.name is not None:
                as_seen = self._dialogue.shown(row.external)
                answers[as_seen] = await self._beside(as_seen, row.name)
        return answers

    async def _beside(self, external: bytes, name: MailboxName) -> list[bytes]:
        """Of one mailbox; nothing where it has just gone."""
        dialogue, returns = self._dialogue, self.request.returns
        lines: list[bytes] = []
        try:
            accessible = dialogue.backend.mailboxes.look(name, dialogue.user)
            if Return.MYRIGHTS in returns:
                rights = format_rights(with_old_rights(accessible.rights))
                lines.append(format_myrights(external, rights))
            if Return.METADATA in returns and "r" in accessible.rights:
                lines.append(self._metadata(external, name))
            if Return.STATUS in returns and "r" in accessible.rights:
                mailbox = await dialogue.backend.store.open(name, dialogue.user.user)
                try:
                    items = self.request.status_items
                    lines.append(await format_status_of(dialogue, external, mailbox, items))
                finally:
                    mailbox.close()
        except Refusal as refusal:
            if refusal.code is not Code.NONEXISTENT:
                raise
        return lines

    def _metadata(self, external: bytes, name: MailboxName) -> bytes:
        """RFC 9590: the entries asked for, NIL where they are not set."""
        present = entries_of(self._dialogue, name)
        asked = [entry.decode("latin-1").lower() for entry in self.request.metadata_entries]
        return format_metadata(external, {entry: present.get(entry) for entry in asked})


def run_lsub(dialogue: BackendImap, command: Command) -> Running:
    """LSUB (RFC 3501 §6.3.9)."""
    return _lsub(dialogue, command)


async def _lsub(dialogue: BackendImap, command: Command) -> None:
    """Subscriptions are of mailboxes here or elsewhere in the murder: a proxy is told all alike and knows which exist."""
    request = await read_list(dialogue, command, b"LSUB")
    if request is not None:
        mailboxes, login = dialogue.backend.mailboxes, dialogue.user
        names = await dialogue.backend.store.subscriptions(login.user)
        # an administrator comes through a frontend under their own name, but it has told whose session that is
        client = dialogue.client_id
        is_proxied = login.by_proxy or ("x-session-id" in client and not login.is_piped)
        away: Container[MailboxName] = ()  # who follows referrals finds it where it is
        referrals = dialogue.backend.referrals
        if command.name == b"RLSUB" and not is_proxied and referrals is not None:
            not_here = [name for name in names if mailboxes.find(name) is None]
            missing = await referrals.are_missing(not_here, login)
            away = frozenset(not_here) - missing

        def is_there(name: MailboxName) -> bool:
            entry = mailboxes.find(name)
            if is_proxied or entry is None:
                return is_proxied or name in away
            return "l" in mailboxes.rights(entry, login)

        await tell_subscribed(dialogue, request, names, is_there)
    await dialogue.finish(command)


def run_subscribe(dialogue: BackendImap, command: Command) -> Running:
    """SUBSCRIBE (RFC 3501 §6.3.6)."""
    return _subscribe(dialogue, command, True)


def run_unsubscribe(dialogue: BackendImap, command: Command) -> Running:
    """UNSUBSCRIBE (RFC 3501 §6.3.7)."""
    return _subscribe(dialogue, command, False)


async def _subscribe(dialogue: BackendImap, command: Command, subscribed: bool) -> None:
    """Whether it exists is not asked (RFC 3501 §6.3.6 leaves that open): it may live on another backend."""
    name = dialogue.name_of(parse_mailbox(Scanner(command.octets, command.start)))
    user = dialogue.user.user
    if subscribed:
        check_readable(name, user)
        await check_room_for_subscription(dialogue.backend, dialogue.user, name)
    await dialogue.backend.store.subscribe(user, name, subscribed)
    with dialogue.causing((Kind.SUBSCRIBED, name)):
        dialogue.backend.events.publish(News(Kind.SUBSCRIBED, name, user=user))
    await dialogue.finish(command)
