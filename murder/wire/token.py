"""Tokens shared by IMAP and MUPDATE: atom, quoted, literal, number, parentheses; both directions.

A `Scanner` walks one complete message, as `wire.fragment` cuts it, with its literals in place; so a token is a slice and
nothing ever waits. Grammar: RFC 3501 §9, RFC 7888 (`{n+}`), RFC 3516 (`~{n}`), RFC 3656 §2.
"""

import re
from typing import Final

from murder.errors import BadSyntax
from murder.wire.literal import LITERAL

# atom-char excludes specials, SP, CTL, 8-bit; RFC 3501 §9
_ATOM: Final = re.compile(rb'[^(){ %*"\\\]\x00-\x20\x7f-\xff]+')
_ASTRING: Final = re.compile(rb'[^(){ %*"\\\x00-\x20\x7f-\xff]+')
_LIST_MAILBOX: Final = re.compile(rb'[^(){ "\\\x00-\x20\x7f-\xff]+')
_FLAG: Final = re.compile(rb'\\?[^(){ %*"\\\]\x00-\x20\x7f-\xff]+|\\\*')
_QUOTED: Final = re.compile(rb'"((?:[^"\\\r\n\x00]++|\\["\\])*+)"')
_BLANKS: Final = re.compile(rb" *+")
_BLANK_END: Final = re.compile(rb" *+(?:\r?\n|\Z)")
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_ATOM_ONLY: Final = re.compile(rb'[^(){ %*"\\\]\x00-\x20\x7f-\xff]+\Z')
_QUOTABLE: Final = re.compile(rb"[^\r\n\x00\x7f-\xff]*\Z")

# longer ones go out as literals: RFC 2683 §3.2.1.5 asks clients for bounded lines
MAX_QUOTED_OCTETS: Final = 1024


class Scanner:
    """A position in the octets of one message. Each method takes one token or raises BadSyntax with its offset.

    One rule for blanks, in all commands: there may be more of them than the grammar has, also behind `(`, before `)` and at
    the end of a line; and none is needed beside a parenthesis. Dovecot takes them so, and clients rely on that (aioimaplib
    sends `ID ( "name" "x" )`).
    """

    __slots__ = ("at", "octets")

    def __init__(self, octets: bytes, at: int = 0) -> None:
        self.octets = octets
        self.at = at

    def bad(self, expected: str) -> BadSyntax:
        """The error for "something else was expected here"; the caller raises it."""
        rest = self.octets[self.at : self.at + 20].split(b"\r")[0]
        return BadSyntax(
            f"expected {expected}, found {rest.decode('ascii', 'backslashreplace')!r}",
            self.at,
        )

    def _take(self, pattern: re.Pattern[bytes], expected: str) -> bytes:
        match = pattern.match(self.octets, self.at)
        if match is None:
            raise self.bad(expected)
        self.at = match.end()
        return match.group()

    def peek(self, size: int = 1) -> bytes:
        """The next octets, untouched; b"" at the end."""
        return self.octets[self.at : self.at + size]

    def at_end(self) -> bool:
        """Whether only the line end is left, maybe with blanks before it."""
        following = self.octets[self.at : self.at + 2]
        if following in (b"\r\n", b"\n", b""):
            return True
        return following[0] == 0x20 and _BLANK_END.match(self.octets, self.at) is not None

    def end(self) -> None:
        """Take the line end; raises if an argument is left over."""
        if self.octets[self.at :] != b"\r\n" and not self.at_end():
            raise self.bad("the end of the command")
        self.at = len(self.octets)

    def accept(self, octets: bytes) -> bool:
        """Take exactly these octets if they are next; of parentheses, the blanks on their inner side too."""
        whole, at = self.octets, self.at
        if octets == b")" and whole.startswith(b" ", at):
            at = self._after_blanks()
        if not whole.startswith(octets, at):
            return False
        self.at = at = at + len(octets)
        if octets == b"(" and whole.startswith(b" ", at):
            self.at = self._after_blanks()
        return True

    def is_open_next(self) -> bool:
        """Whether a parenthesis opens next, maybe behind blanks."""
        return self.octets.startswith(b"(", self._after_blanks())

    def blanks(self) -> None:
        """As many as there are, also none."""
        self.at = self._after_blanks()

    def _after_blanks(self) -> int:
        match = _BLANKS.match(self.octets, self.at)
        assert match is not None, "no blank is one, too"
        return match.end()

    def expect(self, octets: bytes) -> None:
        if not self.accept(octets):
            raise self.bad(repr(octets.decode("ascii")))

    def accept_word(self, word: bytes) -> bool:
        """Take an atom if it is `word` (upper case), whatever its case."""
        match = _ATOM.match(self.octets, self.at)
        if match is None or match.group().upper() != word:
            return False
        self.at = match.end()
        return True

    def space(self) -> None:
        """What separates two tokens."""
        octets, at = self.octets, self.at
        if octets.startswith(b" ", at):
            self.at = self._after_blanks() if octets.startswith(b" ", at + 1) else at + 1
        elif not octets.startswith(b"(", at) and octets[at - 1 : at] != b")":
            raise self.bad("a space")

    def open(self) -> None:
        self.expect(b"(")

    def close(self) -> None:
        self.expect(b")")

    def atom(self) -> bytes:
        return self._take(_ATOM, "an atom")

    def word(self) -> bytes:
        """An atom in upper case: a keyword."""
        return self.atom().upper()

    def flag(self) -> bytes:
        return self._take(_FLAG, "a flag")

    def number(self, most: int = 2**32 - 1) -> int:
        start = self.at
        value = int(self._take(_NUMBER, "a number"))
        if value > most:
            self.at = start
            raise self.bad(f"a number up to {most}")
        return value

    def is_string_next(self) -> bool:
        """Whether a quoted string or literal is next."""
        return self.octets[self.at : self.at + 1] in (
            b'"',
            b"{",
        ) or self.octets.startswith(b"~{", self.at)

    def string(self) -> bytes:
        """Quoted string or literal (also literal8): its octets, unescaped."""
        octets, at = self.octets, self.at
        if octets.startswith(b'"', at):
            match = _QUOTED.match(octets, at)
            if match is None:
                raise self.bad("a quoted string")
            self.at = match.end()
            inner = match.group(1)
            return _ESCAPE.sub(rb"\1", inner) if b"\\" in inner else inner
        match = LITERAL.match(octets, at)
        if match is None:
            raise self.bad("a string")
        begin = match.end()
        self.at = begin + int(match.group(2))
        if self.at > len(octets):
            self.at = at
            raise self.bad("a whole literal")
        return octets[begin : self.at]

    def astring(self) -> bytes:
        return self.string() if self.is_string_next() else self._take(_ASTRING, "an astring")

    def list_mailbox(self) -> bytes:
        """list-mailbox: like astring, with the wildcards `%` and `*`."""
        return self.string() if self.is_string_next() else self._take(_LIST_MAILBOX, "a pattern")

    def login_name(self) -> bytes:
        """LOGIN's userid: an astring, or an atom with `*`, as `anna*boss` is typed and as Python's imaplib sends it, which
        quotes no name (3.11 to 3.14); Dovecot takes that, too."""
        return self.string() if self.is_string_next() else self._take(_LIST_MAILBOX, "an astring")

    def nstring(self) -> bytes | None:
        return None if self.accept_word(b"NIL") else self.string()

    def rest(self) -> bytes:
        """All that is left, without the line end."""
        rest = self.octets[self.at :]
        self.at = len(self.octets)
        return rest.removesuffix(b"\n").removesuffix(b"\r")


def quoted(octets: bytes) -> bytes:
    """As a quoted string; the caller knows that it has no CR, LF, NUL or 8-bit octet."""
    if b"\\" in octets or b'"' in octets:
        octets = octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + octets + b'"'


def literal(octets: bytes) -> bytes:
    """As a synchronising literal: what a server sends."""
    return b"{%d}\r\n%s" % (len(octets), octets)


def literal_plus(octets: bytes) -> bytes:
    """As a non-synchronising literal (RFC 7888): what a client sends where the server takes it."""
    return b"{%d+}\r\n%s" % (len(octets), octets)


def string(octets: bytes) -> bytes:
    """Quoted where that is safe, else a literal."""
    if len(octets) <= MAX_QUOTED_OCTETS and _QUOTABLE.match(octets):
        return quoted(octets)
    return literal(octets)


def nstring(octets: bytes | None) -> bytes:
    return b"NIL" if octets is None else string(octets)


def astring(octets: bytes) -> bytes:
    """An atom where that is safe, else a string."""
    if _ATOM_ONLY.match(octets) and octets.upper() != b"NIL":
        return octets
    return string(octets)


def client_astring(octets: bytes) -> bytes:
    """As `astring`, with a non-synchronising literal: for commands that we send upstream."""
    if _ATOM_ONLY.match(octets) and octets.upper() != b"NIL":
        return octets
    if len(octets) <= MAX_QUOTED_OCTETS and _QUOTABLE.match(octets):
        return quoted(octets)
    return literal_plus(octets)
