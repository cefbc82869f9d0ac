"""What a client believes of its selected mailbox, from nothing but what it was told; told nonsense, it says so.

RFC 3501 §5.5 and §7.4.1, RFC 7162 §3.2, RFC 5267 §4.3, RFC 9586. No clock, no connection: responses in, assertions out.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

FETCH = re.compile(r"\* (\d+) (UID)?FETCH \((.*)\)$", re.S)
UID = re.compile(r"\bUID (\d+)")
FLAGS = re.compile(r"\bFLAGS \(([^)]*)\)")
MODSEQ = re.compile(r"\bMODSEQ \((\d+)\)")
CHANGE = re.compile(r'\* ESEARCH \(TAG "(\w+)"\) UID (ADDTO|REMOVEFROM) \((.*)\)$')


@dataclass
class Told:
    """One message as the client knows it; None is "not told". `news` counts how often its flags were told."""

    uid: int | None = None
    flags: frozenset[str] | None = None
    modseq: int | None = None
    news: int = 0


def expand(sequence: str) -> Iterator[int]:
    """`1:3,7`, in the order written."""
    for part in filter(None, sequence.split(",")):
        low, _, high = part.partition(":")
        yield from range(int(low), int(high or low) + 1)


def compress(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


@dataclass
class Belief:
    """One session's. `numbers_move`: the client has said that it uses no sequence numbers (NOTIFY's SELECTED)."""

    messages: list[Told] = field(default_factory=list)
    uid_only: bool = False
    vanishes: bool = False  # VANISHED is expected in place of EXPUNGE
    with_modseq: bool = False
    highest: int = 0  # all up to here is known: for QRESYNC
    seen: int = 0  # the highest mod-sequence told by the command that runs
    read_only: bool = False  # EXAMINE: what is recent stays so for the next
    code: int | None = None  # HIGHESTMODSEQ, told by the command that runs
    recent: int = 0  # as last told: a client subtracts nothing from it
    recent_of: dict[int, object] = field(default_factory=dict)  # of all sessions together
    me: object = field(default_factory=object)  # this session; selected anew, it is another
    removed: set[int] = field(default_factory=set)  # UIDs that VANISHED has told
    contexts: dict[str, list[int]] = field(default_factory=dict)
    sorted_contexts: set[str] = field(default_factory=set)

    def begin(self, uid_validity_changed: bool = False) -> None:
        """A mailbox is being selected."""
        self.messages = []
        self.recent = 0
        self.me = object()
        self.removed.clear()
        self.highest = self.seen = 0
        self.code = None
        self.contexts.clear()
        self.sorted_contexts.clear()

    def by_uid(self, uid: int) -> Told | None:
        return next((told for told in self.messages if told.uid == uid), None)

    # --- responses

    def hear(self, line: str, *, removals: bool) -> None:
        """One untagged response. `removals`: numbers may change now."""
        if match := FETCH.match(line):
            self._fetched(line, int(match[1]), match[2] is not None, match[3])
        elif match := re.match(r"\* (\d+) EXISTS$", line):
            exists = int(match[1])
            assert exists >= len(self.messages), f"{line}: only removals make it less"
            self.messages += [Told() for _ in range(exists - len(self.messages))]
        elif match := re.match(r"\* (\d+) RECENT$", line):
            self.recent = int(match[1])
            assert self.recent <= len(self.messages), f"{line}: there are {len(self.messages)}"
        elif match := re.match(r"\* STATUS \S+ \(MESSAGES (\d+) RECENT (\d+)\)$", line):
            assert int(match[2]) <= int(match[1]), line
        elif match := re.match(r"\* (\d+) EXPUNGE$", line):
            assert not self.vanishes, f"{line}: VANISHED is expected"
            assert removals, f"{line}: not during this command"
            assert 1 <= int(match[1]) <= len(self.messages), f"{line}: no such message"
            del self.messages[int(match[1]) - 1]
        elif match := re.match(r"\* VANISHED ([\d:,]+)$", line):
            assert self.vanishes, line
            assert removals, f"{line}: not during this command"
            for uid in expand(match[1]):
                self._vanished(line, uid)
        elif match := re.match(r"\* VANISHED \(EARLIER\) ([\d:,]+)$", line):
            for uid in expand(match[1]):
                assert self.by_uid(uid) is None or not self.vanishes, f"{line}: {uid} is counted"
        elif match := re.match(r"\S+ OK \[HIGHESTMODSEQ (\d+)\]", line):
            self.code = int(match[1])
        elif match := CHANGE.match(line):
            self._result_changed(line, match[1], match[2] == "ADDTO", match[3])

    def _fetched(self, line: str, number: int, is_uid: bool, items: str) -> None:
        assert is_uid == self.uid_only, line
        uid = UID.search(items)
        if is_uid:
            told = self._place(line, number)
        else:
            assert 1 <= number <= len(self.messages), f"{line}: no such message"
            told = self.messages[number - 1]
            if uid is not None:
                self._name(line, number - 1, int(uid[1]))
        if flags := FLAGS.search(items):
            told.flags = frozenset(flags[1].split()) - {"\\Recent"}
            if "\\Recent" in flags[1] and told.uid is not None and not self.read_only:
                first = self.recent_of.setdefault(told.uid, self.me)
                assert first is self.me, f"{line}: recent in another session already"
            told.news += 1
        if modseq := MODSEQ.search(items):
            value = int(modseq[1])
            assert told.modseq is None or value >= told.modseq, f"{line}: it was {told.modseq}"
            told.modseq = value
            self.seen = max(self.seen, value)

    def _name(self, line: str, at: int, uid: int) -> None:
        """The message at an index has this UID."""
        told = self.messages[at]
        assert told.uid in (None, uid), f"{line}: it was {told.uid}"
        below = next((one.uid for one in reversed(self.messages[:at]) if one.uid), 0)
        above = next((one.uid for one in self.messages[at + 1 :] if one.uid), 2**32)
        assert below is not None and above is not None
        assert below < uid < above, f"{line}: between {below} and {above}"
        told.uid = uid

    def _gap(self, line: str, uid: int) -> int:
        """The index of a message with this UID, or of one that may be it. Without numbers any unknown one may be."""
        for at, one in enumerate(self.messages):
            if one.uid == uid:
                return at
        unknown = [
            at
            for at, one in enumerate(self.messages)
            if one.uid is None and (self.uid_only or self._fits(at, uid))
        ]
        assert unknown, f"{line}: {uid} is not among the messages told"
        return unknown[0]

    def _fits(self, at: int, uid: int) -> bool:
        return all(other.uid is None or other.uid < uid for other in self.messages[:at]) and all(
            other.uid is None or other.uid > uid for other in self.messages[at + 1 :]
        )

    def _place(self, line: str, uid: int) -> Told:
        told = self.messages[self._gap(line, uid)]
        told.uid = uid
        return told

    def _vanished(self, line: str, uid: int) -> None:
        self.removed.add(uid)
        del self.messages[self._gap(line, uid)]

    def _result_changed(self, line: str, tag: str, added: bool, pairs: str) -> None:
        results = self.contexts.get(tag)
        if results is None:
            return  # of a context that is being cancelled
        words = pairs.split()
        for position, sequence in zip(map(int, words[::2]), words[1::2], strict=True):
            for offset, uid in enumerate(expand(sequence)):
                if added:
                    assert uid not in results, f"{line}: {uid} is a result already"
                    if not position:
                        results.append(uid)
                    else:
                        assert position + offset - 1 <= len(results), line
                        results.insert(position + offset - 1, uid)
                elif position:
                    assert results[position - 1] == uid, f"{line}: not at that position: {results}"
                    del results[position - 1]
                else:
                    assert uid in results, f"{line}: {uid} is no result"
                    results.remove(uid)

    def concluded(self) -> None:
        """A command has ended in OK: what a client that resynchronises may keep (RFC 7162 §5)."""
        assert self.recent <= len(self.messages), (
            f"{self.recent} RECENT, {len(self.messages)} EXISTS"
        )
        if self.code is not None:
            self.highest = self.code
        else:
            self.highest = max(self.highest, self.seen)
        self.code, self.seen = None, 0
