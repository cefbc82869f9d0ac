"""LIST as a pure computation: which names a pattern shows to a user, with the levels above them.

Frontend and backend share it; what exists and who may see it comes from outside as names in collation order
(`MailboxList.visible`), which is why nothing is ever held but one path down the tree. RFC 3501 §6.3.8, RFC 5258.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from murder.errors import Code, Refusal
from murder.model.name import (
    USER_ROOT,
    MailboxName,
    Namespace,
    ancestors_of,
    collation_key,
    inbox_of,
    split_domain,
)
from murder.model.query.listmatch import (
    MAX_PATTERN_OCTETS,
    WILDCARDS,
    compile_pattern,
    has_wildcards,
    literal_head,
    simplified,
)

INBOX: Final = b"INBOX"
MAX_WILDCARDS: Final = 10  # of a pattern, runs of them counted as one: a level each is deep enough
MAX_WILD_PATTERNS: Final = 10  # so many times that in all patterns of a command
MOST_NODES: Final = 160  # of a walk, that are put down
MAX_WILD_OCTETS: Final = 8192  # of the patterns that have some, as they came: a name has 490


@dataclass(frozen=True, slots=True)
class ListRow:
    """One answer. `name` is None for a level that is no more than a prefix (`user`, `Other Users`).

    `exists`: it is a mailbox that the user may see; else only a level above one (\\Noselect, or \\NonExistent).
    `chosen`: it fulfils the selection options. `chosen_below`: something below it does (CHILDINFO, RFC 5258 §3.5).
    """

    external: bytes
    name: MailboxName | None
    exists: bool
    chosen: bool
    has_children: bool
    chosen_below: bool = False


class ListQuery:
    """Reference and patterns of one command, as one user in one namespace means them.

    Raises Refusal(LIMIT) for patterns that are too long or too wild. `prefixes`: a name that can match starts with one of
    these (canonical form), in collation order and without overlap; look no further than there.
    """

    def __init__(
        self,
        namespace: Namespace,
        user: str,
        reference: bytes,
        patterns: Sequence[bytes],
        most_wildcards: int = MAX_WILDCARDS,
    ) -> None:
        self.namespace = namespace
        self.user = user
        self.own = inbox_of(user)
        _check_octets(reference, patterns)
        absolute = self._absolutes = [self._absolute(reference, pattern) for pattern in patterns]
        separator = namespace.separator
        self._names = frozenset(pattern for pattern in absolute if not has_wildcards(pattern))
        wild = list(dict.fromkeys(pattern for pattern in absolute if has_wildcards(pattern)))
        _check_cost(wild, most_wildcards)
        compiled = {pattern: compile_pattern(pattern, separator) for pattern in wild}
        self._patterns = list(compiled.values())
        self._level_patterns = [compiled[pattern] for pattern in wild if pattern.endswith(b"%")]
        self._inbox_shown = INBOX in {name.upper() for name in self._names} or any(
            compile_pattern(pattern.upper(), separator).fullmatch(INBOX) for pattern in wild
        )
        self.prefixes = _without_overlap(
            prefix for pattern in absolute for prefix in self._prefixes_of(pattern)
        )

    def _absolute(self, reference: bytes, pattern: bytes) -> bytes:
        separator = self.namespace.separator
        if reference.endswith(separator) and pattern.startswith(separator):
            pattern = pattern[1:]
        whole = simplified(reference + pattern)
        if whole[:5].upper() == INBOX and whole[5:6] in (b"", b"%", b"*", separator):
            return INBOX + whole[5:]
        return whole

    @property
    def shows_all(self) -> bool:
        """Whether it is the plain `*`."""
        return self._absolutes == [b"*"]

    def matches(self, external: bytes) -> bool:
        """Whether a pattern shows this name."""
        if external == INBOX:
            return self._inbox_shown
        return external in self._names or self.matches_widely(external)

    def matches_widely(self, external: bytes) -> bool:
        """Whether a pattern with a wildcard shows it."""
        for pattern in self._patterns:
            if pattern.fullmatch(external):
                return True
        return False

    def matches_level(self, external: bytes) -> bool:
        """Whether a pattern that ends with `%` shows this level although it is no mailbox."""
        return any(pattern.fullmatch(external) for pattern in self._level_patterns)

    def shown_of(self, nodes: "Sequence[Node]") -> "Iterator[tuple[int, Node]]":
        """What this query shows of all that a walk for another one of the same user has put down, and where each stands
        there: as a walk without selection, that shows levels, would (`ListWalk`)."""
        own, names, patterns = self.own + b".", self._names, self._patterns
        roots = set[bytes]()
        for at, node in enumerate(nodes):
            external, name = node.external, node.name
            tried, is_shown = patterns, False
            if node.exists:
                is_shown = self._inbox_shown if external == INBOX else external in names
            elif name is None or not name.startswith(own):
                tried = self._level_patterns
            if not is_shown and not (node.exists and external == INBOX):
                for pattern in tried:
                    if pattern.fullmatch(external):
                        is_shown = True
                        break
            if not is_shown or (name is None and external in roots):
                continue
            if name is None:
                roots.add(external)
            yield at, node

    def _prefixes_of(self, pattern: bytes) -> Iterator[bytes]:
        head = literal_head(pattern)
        own, namespace = self.own, self.namespace
        domain = split_domain(own)[0]
        mark = domain + b"!" if domain else b""
        users, shared = namespace.users_prefix, namespace.shared_prefix
        separator = namespace.separator
        before, mark_at, named = pattern.rpartition(b"@")
        if mark_at and namespace.domains and literal_head(named) == named:
            of_domain = named + b"!" if named else b""
            stem = literal_head(before)
            if before.startswith(users):
                yield of_domain + USER_ROOT + b"." + namespace.inward(stem[len(users) :])
                return
            if before.startswith(shared):  # or anything, where shared ones are at the top
                yield of_domain + namespace.inward(stem[len(shared) :])
            elif stem != before and (users.startswith(stem) or shared.startswith(stem)):
                yield of_domain
        elif namespace.domains and not domain and self._reaches_domains(pattern, head):
            yield b""
            return
        if INBOX.startswith(head.upper()):
            yield own
        if head == INBOX and INBOX == pattern:
            return
        inward = namespace.inward
        if not namespace.alternative:
            if head.startswith(INBOX + separator):
                yield own + b"." + inward(head[6:])
            else:
                yield mark + inward(self._without_domain(head))
            return
        if head.startswith(users):
            yield mark + USER_ROOT + b"." + inward(self._without_domain(head)[len(users) :])
        elif head.startswith(shared):
            yield mark + inward(head[len(shared) :])
        else:
            yield own + b"." + inward(head)
            if users.startswith(head):
                yield mark + USER_ROOT + b"."
            if shared.startswith(head):
                yield mark

    def _reaches_domains(self, pattern: bytes, head: bytes) -> bool:
        """Whether who is of no domain, an administrator, may see mailboxes of every domain so: their names end with it."""
        namespace = self.namespace
        users, shared = namespace.users_prefix, namespace.shared_prefix
        tail = WILDCARDS.split(pattern)[-1]
        in_domain = namespace.separator not in tail or not namespace.unix_hierarchy
        if head == pattern or not (b"@" in pattern or in_domain):  # a domain has no / in it
            return False
        if namespace.alternative:
            return head.startswith((users, shared)) or users.startswith(head)
        return not head.startswith(INBOX + namespace.separator)

    def _without_domain(self, head: bytes) -> bytes:
        """`user/name@do*` may mean any mailbox of the name."""
        if head.startswith(self.namespace.users_prefix):
            return head.partition(b"@")[0]
        return head

    def levels_of(self, name: MailboxName) -> list[tuple[bytes, MailboxName | None]]:
        """`(external, name)` of all levels above a mailbox as this user sees them, outermost first."""
        own, namespace, user = self.own, self.namespace, self.user
        above = ancestors_of(name)
        above.reverse()
        if name == own or name.startswith(own + b"."):
            if namespace.alternative:
                above = [level for level in above if level != own]
            return [(namespace.external(level, user), level) for level in above]
        levels: list[tuple[bytes, MailboxName | None]] = [
            (namespace.external(level, user), level) for level in above
        ]
        if split_domain(name)[1].startswith(USER_ROOT + b"."):
            levels.insert(0, (namespace.users_prefix[:-1], None))
        elif namespace.alternative:
            levels.insert(0, (namespace.shared_prefix[:-1], None))
        return levels


def _check_octets(reference: bytes, patterns: Sequence[bytes]) -> None:
    """Before anything is looked for in them: a hundred may come, each as long as a command."""
    wild = 0
    for pattern in patterns:
        octets = len(reference) + len(pattern)
        if octets > MAX_PATTERN_OCTETS:
            raise Refusal(Code.LIMIT, f"A pattern may have {MAX_PATTERN_OCTETS} octets")
        if has_wildcards(pattern) or has_wildcards(reference):
            wild += octets
    if wild > MAX_WILD_OCTETS:
        raise Refusal(
            Code.LIMIT, f"Patterns with wildcards may have {MAX_WILD_OCTETS} octets together"
        )


def _check_cost(patterns: Sequence[bytes], most: int) -> None:
    """What is looked at for each name, and compiled, goes with the wildcards and with the octets beside them."""
    wildcards = [len(WILDCARDS.findall(pattern)) for pattern in patterns]
    if max(wildcards, default=0) > most or sum(wildcards) > MAX_WILD_PATTERNS * most:
        raise Refusal(
            Code.LIMIT,
            f"A pattern may have {most} wildcards, all of a command {MAX_WILD_PATTERNS * most}",
        )


def _without_overlap(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    for prefix in sorted(set(prefixes), key=collation_key):
        if not any(prefix.startswith(shorter) for shorter in kept):
            kept.append(prefix)
    return tuple(kept)


@dataclass(slots=True)
class Node:
    """A name or a level of a walk; when that has ended nothing of it changes any more."""

    external: bytes
    name: MailboxName | None
    exists: bool
    chosen: bool
    shown: bool  # a pattern shows it
    has_children: bool = False
    chosen_below: bool = False
    hidden_below: bool = False  # something chosen below, which no pattern shows
    final: bool = False  # nothing below it will come any more


class ListWalk:
    """Names in, rows out: `push` each visible name in collation order, then `end`.

    `levels`: also show levels that are no mailboxes where a pattern ends with `%` (LIST and LSUB do, a LIST with
    selection options does not). `own_levels`: in the user's own tree those that any pattern with a wildcard shows (LIST
    does, LSUB must not): CREATE has made them, as it were (RFC 3501 §6.3.3), and Cyrus and Dovecot list them; who names
    one asks whether it is there. `recursive`: also show what
    is not chosen but has something chosen below
    that no pattern shows (RECURSIVEMATCH, RFC 5258 §3.1, §3.5).
    """

    def __init__(
        self,
        query: ListQuery,
        *,
        levels: bool = True,
        own_levels: bool = False,
        recursive: bool = False,
        nodes: "list[Node] | None" = None,
    ) -> None:
        """`nodes`: where all names and levels are put down, shown or not, for `ListQuery.shown_of`."""
        self._nodes = nodes
        self._own = query.own + b"." if own_levels else None
        self._query = query
        self._levels = levels
        self._recursive = recursive
        self._path: list[Node] = []  # from the top down to the last name
        self._waiting: deque[Node] = deque()  # not yet decided, in order
        self._roots_shown: set[bytes] = set()

    def push(self, name: MailboxName, *, exists: bool = True, chosen: bool = True) -> list[ListRow]:
        """The rows that are certain now; most often that of the name before."""
        query, path = self._query, self._path
        levels = query.levels_of(name)
        depth = 0
        for external, level in levels:
            if depth >= len(path) or (path[depth].external, path[depth].name) != (external, level):
                break
            depth += 1
        self._close(depth)
        for external, level in levels[depth:]:
            self._open(external, level, exists=False, chosen=False)
        self._open(query.namespace.external(name, query.user), name, exists, chosen)
        hidden = chosen and not path[-1].shown
        for above in path[:-1]:
            above.has_children = above.has_children or exists
            above.chosen_below = above.chosen_below or chosen
            above.hidden_below = above.hidden_below or hidden
        return self._certain()

    def end(self) -> list[ListRow]:
        """What was still waiting."""
        self._close(0)
        return self._certain()

    def rows(self, names: Iterable[MailboxName]) -> Iterator[ListRow]:
        """All at once, for callers that need no pauses."""
        for name in names:
            yield from self.push(name)
        yield from self.end()

    def _open(self, external: bytes, name: MailboxName | None, exists: bool, chosen: bool) -> None:
        query = self._query
        if exists or chosen or self._recursive:
            is_shown = query.matches(external)
        else:
            is_shown = self._levels and query.matches_level(external)
            if self._own is not None and name is not None and name.startswith(self._own):
                is_shown = query.matches_widely(external)
        node = Node(external, name, exists, chosen, is_shown)
        self._path.append(node)
        if self._nodes is not None and len(self._nodes) <= MOST_NODES:
            self._nodes.append(node)
        if is_shown:
            self._waiting.append(node)

    def _close(self, depth: int) -> None:
        for node in self._path[depth:]:
            node.final = True
        del self._path[depth:]

    def _certain(self) -> list[ListRow]:
        rows = []
        waiting, recursive = self._waiting, self._recursive
        while waiting:
            node = waiting[0]
            if not (self._is_decided(node) if recursive else node.final or node.has_children):
                break
            waiting.popleft()
            if not (node.chosen or self._is_answer(node)):
                continue
            if node.name is None:
                if node.external in self._roots_shown:
                    continue
                self._roots_shown.add(node.external)
            rows.append(
                ListRow(
                    node.external,
                    node.name,
                    node.exists,
                    node.chosen,
                    node.has_children,
                    node.chosen_below,
                )
            )
        return rows

    def _is_decided(self, node: Node) -> bool:
        """Of a recursive walk."""
        if node.final:
            return True
        return node.has_children and (node.chosen_below if node.chosen else node.hidden_below)

    def _is_answer(self, node: Node) -> bool:
        """Of what is not chosen."""
        if self._recursive:  # RFC 5258 §3.5: not where all that is chosen below is told itself
            return node.hidden_below
        return not node.exists and self._levels and node.chosen_below
