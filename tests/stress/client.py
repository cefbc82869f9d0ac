"""A client that does random things to one mailbox, many at once, and holds the server to all it says.

Kinds: what a client has enabled. Commands are sent in bursts; numbers are never sent behind a command that may change
them, for then nobody knows what they mean (RFC 3501 §5.5).
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from tests.stress.belief import Belief, Told, compress, expand

KINDS: Final = ("plain", "condstore", "qresync", "uidonly", "notify", "delayed")
BY_UID: Final = frozenset({"uidonly", "notify"})  # these never use numbers
WORDS: Final = ("\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "Work", "$Junk")
KEYS: Final = ("ALL", "UNSEEN", "FLAGGED", "NOT DELETED", "OR KEYWORD Work DRAFT", "SUBJECT b")
ORDERS: Final = ("SUBJECT", "REVERSE SIZE", "ARRIVAL", "SIZE REVERSE SUBJECT")
LIMIT_S: Final = 60.0
BOX: Final = "INBOX"
OTHER: Final = "INBOX/other"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Ask:
    """One command. `moves`: it may remove messages; `quiet`: no removal may be told during it."""

    text: bytes
    quiet: bool = False
    moves: bool = True
    begin: Callable[[str], None] = lambda _: None
    end: Callable[[str], None] = lambda _: None


@dataclass
class Change:
    """A silent STORE: what the client makes of it before the server has said anything, and what it was."""

    before: list[tuple[Told, frozenset[str] | None, int]] = field(default_factory=list)

    def make(self, messages: list[Told], sign: str, words: frozenset[str]) -> None:
        for told in messages:
            self.before.append((told, told.flags, told.news))
            if told.flags is not None:
                match sign:
                    case "+":
                        told.flags |= words
                    case "-":
                        told.flags -= words
                    case _:
                        told.flags = words

    def undo(self, told: Told) -> None:
        for one, flags, news in self.before:
            if one is told and one.news == news:
                one.flags = flags


class Client:
    """One session; see the module."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], kind: str, seed: int):
        self._connect = connect
        self.kind = kind
        self.random = random.Random(seed)
        self._examines = False
        self.belief = Belief(
            uid_only=kind == "uidonly",
            vanishes=kind in ("qresync", "uidonly"),
            with_modseq=kind in ("condstore", "qresync"),
        )
        self._tag = 0
        self._validity = ""
        self.said: list[str] = []
        self.keys: dict[str, str] = {}  # context tag -> the search it keeps
        self.vanished_earlier: set[int] = set()

    # --- the connection

    async def open(self, select: str = f"SELECT {BOX}") -> None:
        self.reader, self.writer = await self._connect()
        await self._line()
        await self.ask("LOGIN ana secret")
        enabled = {"condstore": "CONDSTORE", "qresync": "QRESYNC", "uidonly": "UIDONLY"}
        if self.kind in enabled:
            await self.ask(f"ENABLE {enabled[self.kind]}")
        which = {"notify": "SELECTED", "delayed": "SELECTED-DELAYED"}.get(self.kind)
        if which is not None:
            items = "MessageNew (UID FLAGS) MessageExpunge FlagChange"
            await self.ask(f"NOTIFY SET ({which} ({items}))")
        await self.select(select)

    async def select(self, command: str, *, closed: bool = True) -> None:
        """`closed`: nothing is selected; else the server says where the old mailbox ends and the new one begins."""
        self._examines = command.startswith("EXAMINE")
        if closed:
            self._forget()
        await self.ask(command)

    def _forget(self) -> None:
        self.belief.begin()
        self.belief.read_only = self._examines
        self.keys.clear()
        self.vanished_earlier.clear()

    async def _line(self) -> str:
        """One response with its literals in place."""
        octets = await asyncio.wait_for(self.reader.readline(), LIMIT_S)
        assert octets.endswith(b"\n"), "the server has closed"
        while match := re.search(rb"\{(\d+)\}\r\n\Z", octets):
            octets += await self.reader.readexactly(int(match[1]))
            octets += await asyncio.wait_for(self.reader.readline(), LIMIT_S)
        line = octets.decode("latin-1").removesuffix("\r\n")
        self.said.append(f"S: {line}")
        return line

    async def ask(self, text: str) -> None:
        await self.run([Ask(text.encode())])

    async def run(self, asks: list[Ask]) -> None:
        """Send them all, then hear all answers."""
        tags: list[str] = []
        octets = b""
        for one in asks:
            self._tag += 1
            tags.append(f"t{self._tag}")
            octets += f"{tags[-1]} ".encode() + one.text + b"\r\n"
            self.said.append(f"C: {tags[-1]} {one.text.decode('latin-1')}")
        self.writer.write(octets)
        for tag, one in zip(tags, asks, strict=True):
            one.begin(tag)
            while not (line := await self._line()).startswith(f"{tag} "):
                self._hear(line, removals=not one.quiet or self.kind == "notify")
            self._hear(line, removals=False)
            assert line.startswith((f"{tag} OK", f"{tag} NO")), line
            one.end(line)
            self.belief.concluded()

    def _hear(self, line: str, *, removals: bool) -> None:
        if line.startswith("* OK [CLOSED]"):
            self._forget()
        if match := re.match(r"\* OK \[UIDVALIDITY (\d+)\]", line):
            self._validity = match[1]
        if match := re.match(r"\* VANISHED \(EARLIER\) ([\d:,]+)$", line):
            self.vanished_earlier.update(expand(match[1]))
        if match := re.match(
            r'\* ESEARCH \(TAG "(\w+)"\) UID(?: ALL ([\d:,]+))?(?: MOD.*)?$', line
        ):
            if match[1] in self.keys:
                self.belief.contexts[match[1]] = list(expand(match[2] or ""))
        if match := re.match(r'\* NO \[NOUPDATE "(\w+)"\]', line):
            self.belief.contexts.pop(match[1], None)
        self.belief.hear(line, removals=removals)

    # --- random commands

    async def act(self) -> None:
        """One burst, or something that goes alone."""
        draw = self.random.random()
        if draw < 0.04:
            await self._idle()
        elif draw < 0.06:
            again = self.random.choice([f"SELECT {BOX}", f"EXAMINE {BOX}"])
            await self.select(again, closed=False)
        elif draw < 0.07:
            await self.ask(self.random.choice(["CLOSE", "UNSELECT"]))
            await self.select(f"SELECT {BOX}")
        elif draw < 0.12 and self.kind == "qresync":
            await self.reconnect()
        elif draw < 0.24:
            await self._again()
        else:
            await self._burst()

    async def _burst(self) -> None:
        asks: list[Ask] = []
        for _ in range(self.random.randint(1, 4)):
            numbered = self.kind not in BY_UID and not any(one.moves for one in asks)
            asks.append(self._some(numbered and self.random.random() < 0.7))
        await self.run(asks)

    async def _again(self) -> None:
        """What is asked most and answered from what was answered before, each alone, while the others go on."""
        for _ in range(self.random.randint(2, 4)):
            draw = self.random.random()
            if draw < 0.6 and self.belief.messages:
                await self.run([self._fetch_flags(self.kind not in BY_UID and draw < 0.3)])
            else:
                asked = f"STATUS {BOX} (MESSAGES RECENT)", f"STATUS {OTHER} (MESSAGES UNSEEN)"
                words = self.random.choice(["NOOP", "NOOP", 'LIST "" "*"', *asked])
                await self.run([Ask(words.encode())])

    async def _idle(self) -> None:
        self._tag += 1
        tag = f"t{self._tag}"
        self.said.append(f"C: {tag} IDLE")
        self.writer.write(f"{tag} IDLE\r\n".encode())
        assert (await self._until("+")).startswith("+")
        for _ in range(self.random.randint(0, 20)):
            await asyncio.sleep(0)
        self.writer.write(b"DONE\r\n")
        assert (await self._until(tag)).startswith(f"{tag} OK")
        self.belief.concluded()

    async def _until(self, word: str) -> str:
        while not (line := await self._line()).startswith(word):
            self._hear(line, removals=True)
        self._hear(line, removals=False)
        return line

    async def reconnect(self) -> None:
        """Lose the connection, and resynchronise with what is known (RFC 7162 §3.2.5)."""
        known = {told.uid: told for told in self.belief.messages if told.uid is not None}
        since = self.belief.highest
        self.writer.transport.abort()
        sets = f" {compress(known)}" if known and self.random.random() < 0.5 else ""
        self.said.append(f"-- again, since {since}")
        await self.open(f"SELECT {BOX} (QRESYNC ({self._validity} {since}{sets}))")
        gone = frozenset(self.vanished_earlier)
        present = {told.uid for told in self.belief.messages}
        assert not gone & present, f"{gone & present} are told gone, and there"
        await self.ask("UID FETCH 1:* (UID)")
        for told in self.belief.messages:
            old = known.get(told.uid or 0)
            if old is not None and told.flags is None:
                told.flags, told.modseq = old.flags, old.modseq
        found = {told.uid for told in self.belief.messages}
        lost = known.keys() - gone - found - self.belief.removed
        assert not lost, f"{lost} are gone, and nobody said so"

    def _some(self, numbered: bool) -> Ask:
        messages = self.belief.messages
        named = [told for told in messages if told.uid is not None]
        pool = messages if numbered else named
        draw = self.random.random()
        if not pool and draw < 0.8:
            return self._fetch_all(numbered) if messages and draw < 0.4 else self._append()
        if draw < 0.25:
            return self._store(numbered, pool)
        if draw < 0.45:
            return self._fetch(numbered, pool)
        if draw < 0.52:
            return self._search(numbered)
        if draw < 0.58:
            return self._context()
        if draw < 0.63:
            return self._copy(numbered, pool)
        if draw < 0.80:
            return self._append()
        return Ask(
            self.random.choice(
                [
                    *(b"EXPUNGE", b"NOOP", b"CHECK", b"NOOP", self._uid_expunge()),
                    b"STATUS %s (MESSAGES RECENT)" % BOX.encode(),
                ]
            )
        )

    def _uid_expunge(self) -> bytes:
        uids = [told.uid for told in self.belief.messages if told.uid is not None]
        return f"UID EXPUNGE {self.random.choice(uids)}:*".encode() if uids else b"EXPUNGE"

    def _chosen(self, numbered: bool, pool: list[Told]) -> tuple[str, list[Told]]:
        chosen = self.random.sample(pool, min(len(pool), self.random.randint(1, 4)))
        if not numbered:
            return compress(told.uid or 0 for told in chosen), chosen
        at = {id(told): number for number, told in enumerate(self.belief.messages, 1)}
        return compress(at[id(told)] for told in chosen), chosen

    def _fetch_all(self, numbered: bool) -> Ask:
        word = "" if numbered else "UID "
        return Ask(f"{word}FETCH 1:* (UID FLAGS)".encode(), quiet=numbered, moves=not numbered)

    def _fetch_flags(self, numbered: bool) -> Ask:
        word = "" if numbered else "UID "
        items = self.random.choice(["FLAGS", "(FLAGS)"])
        return Ask(f"{word}FETCH 1:* {items}".encode(), quiet=numbered, moves=not numbered)

    def _fetch(self, numbered: bool, pool: list[Told]) -> Ask:
        if self.random.random() < 0.3:
            return self._fetch_all(numbered)
        chosen, _ = self._chosen(numbered, pool)
        items = self.random.choice(
            ["FLAGS", "UID", "BODY[]", "(FLAGS BODY.PEEK[TEXT])", "ENVELOPE"]
        )
        word = "" if numbered else "UID "
        return Ask(f"{word}FETCH {chosen} {items}".encode(), quiet=numbered, moves=not numbered)

    def _store(self, numbered: bool, pool: list[Told]) -> Ask:
        chosen, messages = self._chosen(numbered, pool)
        words = frozenset(self.random.sample(WORDS, self.random.randint(1, 2)))
        sign = self.random.choice(["+", "+", "-", ""])
        may_hide = self.kind not in ("notify", "delayed")  # told at any time: before it, or after?
        silent = ".SILENT" if may_hide and self.random.random() < 0.5 else ""
        condition = ""
        if self.belief.with_modseq and self.random.random() < 0.4:
            known = [told.modseq for told in messages if told.modseq]
            condition = f" (UNCHANGEDSINCE {max(known)})" if known else ""
        change = Change()

        def begin(_: str) -> None:
            if silent:
                change.make(
                    [told for told in messages if told in self.belief.messages], sign, words
                )

        def end(line: str) -> None:
            modified = re.search(r"\[MODIFIED ([\d:,]+)\]", line)
            refused = frozenset(expand(modified[1])) if modified else frozenset()
            for number, told in enumerate(self.belief.messages, 1):
                if (number if numbered else told.uid) in refused or " NO " in line:
                    change.undo(told)

        word = "" if numbered else "UID "
        text = f"{word}STORE {chosen}{condition} {sign}FLAGS{silent} ({' '.join(words)})"
        return Ask(text.encode(), quiet=numbered, moves=not numbered, begin=begin, end=end)

    def _search(self, numbered: bool) -> Ask:
        exists = len(self.belief.messages)
        key = self.random.choice(KEYS)
        if not numbered:
            return Ask(f"UID SEARCH {key}".encode())
        if exists and self.random.random() < 0.3:
            key = f"1:{exists} {key}"
        return Ask(f"SEARCH {key}".encode(), quiet=True, moves=False)

    def _context(self) -> Ask:
        if self.keys and self.random.random() < 0.4:
            tag = self.random.choice(list(self.keys))
            del self.keys[tag]
            self.belief.contexts.pop(tag, None)
            return Ask(f'CANCELUPDATE "{tag}"'.encode())
        key = self.random.choice(KEYS)
        order = self.random.choice(ORDERS) if self.random.random() < 0.5 else ""
        search = (
            f"SORT RETURN ({{}}) ({order}) UTF-8 {key}" if order else f"SEARCH RETURN ({{}}) {key}"
        )

        def begin(tag: str) -> None:
            self.keys[tag] = search

        def end(line: str) -> None:
            tag = line.partition(" ")[0]
            if tag not in self.belief.contexts:  # refused
                del self.keys[tag]

        text = f"UID {search.format('UPDATE ALL')}"
        return Ask(text.encode(), begin=begin, end=end)

    def _copy(self, numbered: bool, pool: list[Told]) -> Ask:
        chosen, messages = self._chosen(numbered, pool)
        word = "" if numbered else "UID "
        if self.random.random() < 0.2 and messages[0].uid is not None:
            subject = self.random.choice("abc")
            octets = b"Subject: %s\r\n\r\n" % subject.encode()
            text = f"UID REPLACE {messages[0].uid} {BOX} {{{len(octets)}+}}\r\n"
            return Ask(text.encode() + octets)
        verb, target = self.random.choice([("COPY", BOX), ("MOVE", OTHER), ("MOVE", BOX)])
        return Ask(f"{word}{verb} {chosen} {target}".encode())

    def _append(self) -> Ask:
        text = f"APPEND {BOX}".encode()
        for _ in range(self.random.choice([1, 1, 1, 3])):
            flags = " ".join(self.random.sample(WORDS, self.random.randint(0, 2)))
            octets = f"Subject: {self.random.choice('abc')}\r\n\r\n".encode()
            octets += b"x" * self.random.randint(0, 300)
            text += f" ({flags}) {{{len(octets)}+}}\r\n".encode() + octets
        return Ask(text)

    # --- the end of a round

    async def settle(self) -> None:
        """Nobody does anything any more: hear the last of it, and see whether the searches were kept well."""
        await self.ask("NOOP")
        for tag, search in list(self.keys.items()):
            believed = list(self.belief.contexts[tag])
            if search.startswith("SEARCH"):
                believed.sort()
            before = len(self.said)
            await self.ask(f"UID {search.format('ALL')}")
            answers = [line for line in self.said[before:] if line.startswith("S: * ESEARCH")]
            found = re.search(r" ALL ([\d:,]+)", answers[0])
            truth = list(expand(found[1])) if found else []
            assert believed == truth, f"{tag} {search}: kept {believed}, it is {truth}"

    def check(self, truth: dict[int, tuple[frozenset[str], int]]) -> None:
        """What is believed against what is."""
        messages = self.belief.messages
        assert len(messages) == len(truth), f"{len(messages)} believed, {len(truth)} there"
        if self.kind == "uidonly":
            messages = [told for told in messages if told.uid is not None]
            strange = {told.uid for told in messages} - truth.keys()
            assert not strange, f"{strange} believed, not there"
            truth = {told.uid: truth[told.uid] for told in messages if told.uid is not None}
            messages.sort(key=lambda told: told.uid or 0)
        for told, uid in zip(messages, sorted(truth), strict=True):
            flags, modseq = truth[uid]
            assert told.uid in (None, uid), f"{told} should be {uid}"
            assert told.flags in (None, flags), f"{uid}: {told.flags} believed, {flags} there"
            if self.belief.with_modseq and told.modseq is not None:
                assert told.modseq == modseq, f"{uid}: {told.modseq} believed, {modseq} there"
