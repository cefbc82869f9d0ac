"""The words of a script: RFC 5228 §8.1. Linear in its size, and never raises; what is no word is reported and skipped."""

import re
from enum import Enum
from typing import Final

from murder.sieve.grammar.source import Source
from murder.sieve.limits import Limits

MAX_NUMBER: Final = 2**64 - 1  # RFC 5228 §2.4.1 asks for 31 bits; as Pigeonhole
MOST_DIGITS: Final = 20

_QUANTIFIERS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SKIPPED: Final = re.compile(r"(?:[ \t\r\n]++|#[^\n\0]*+)++")
_WORD: Final = re.compile(r"(:?)([A-Za-z_][A-Za-z0-9_]*+)")
_NUMBER: Final = re.compile(r"([0-9]++)([KMGkmg]?)")
# quoted-string = DQUOTE *( safe / "\" any ) DQUOTE
_QUOTED: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
# multi-line = "text:" *(SP / HTAB) (hash-comment / CRLF) *(multiline-literal / multiline-dotstart) "." CRLF
_TEXT: Final = re.compile(r"text:[ \t]*+(?:#[^\n]*+)?\r?(\n|\Z)?", re.IGNORECASE)
_LINE_END: Final = re.compile(r"\r?\n")
_GARBAGE: Final = re.compile(r"[^ \t\r\n#A-Za-z0-9_:\"\[\](){};,/]++|.", re.DOTALL)


class Kind(Enum):
    """What a token is; marks have themselves as value."""

    WORD = "an identifier"
    TAG = "a tag"
    NUMBER = "a number"
    STRING = "a string"
    GARBAGE = "unexpected characters"
    BROKEN = "a broken token"  # the lexer has told why
    END = "the end of the script"
    LIST = "["
    LIST_END = "]"
    TESTS = "("
    TESTS_END = ")"
    BLOCK = "{"
    BLOCK_END = "}"
    COMMA = ","
    SEMICOLON = ";"

    @property
    def shown(self) -> str:
        """As an error text names it."""
        return f"'{self.value}'" if len(self.value) == 1 else self.value


_MARKS: Final = {kind.value: kind for kind in Kind if len(kind.value) == 1}


class Tokens:
    """The current token of a script, and the next one on `skip`."""

    __slots__ = ("_end", "_limits", "_source", "at", "kind", "number", "text")

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._end = 0  # behind the current token
        self.at = 0
        self.kind = Kind.END
        self.text = ""
        self.number = 0
        self.skip()

    def skip(self) -> None:
        """Go to the next token."""
        text = self._source.text
        if not self._skip_space(text):
            return
        at = self.at = self._end
        if at >= len(text):
            self.kind = Kind.END
            return
        head = text[at]
        if mark := _MARKS.get(head):
            self.kind, self._end = mark, at + 1
        elif head == '"':
            self._quoted(text)
        elif (match := _TEXT.match(text, at)) is not None:
            self._multi_line(text, match)
        elif (match := _WORD.match(text, at)) is not None:
            self._word(match)
        elif (match := _NUMBER.match(text, at)) is not None:
            self._number(match)
        else:
            self._garbage(text)

    def _skip_space(self, text: str) -> bool:
        """Go behind white space and comments; False where a comment is a broken token."""
        while True:
            if (match := _SKIPPED.match(text, self._end)) is not None:
                self._end = match.end()
            if not text.startswith("/*", self._end):
                return True
            end = text.find("*/", self._end + 2)
            if end < 0:
                self._broken(self._end, len(text), "end of file before end of bracket comment")
                return False
            if "\0" in text[self._end : end]:
                self._broken(self._end, end + 2, "encountered NUL character in bracket comment")
                return False
            self._end = end + 2

    def _broken(self, at: int, end: int, what: str) -> None:
        self._source.report(at, what)
        self.kind, self.at, self._end = Kind.BROKEN, at, end

    def _word(self, match: re.Match[str]) -> None:
        is_tag, name = bool(match[1]), match[2]
        if len(name) > self._limits.identifier_octets:
            shortened = f"{match[1]}{name[:20]}..."
            what = "tag identifier" if is_tag else "identifier"
            self._broken(
                match.start(), match.end(), f"encountered impossibly long {what} '{shortened}'"
            )
            return
        self.kind = Kind.TAG if is_tag else Kind.WORD
        self.text, self._end = name.lower(), match.end()

    def _number(self, match: re.Match[str]) -> None:
        digits = match[1].lstrip("0")
        value = MAX_NUMBER + 1
        if len(digits) <= MOST_DIGITS:
            value = int(digits or "0") * _QUANTIFIERS[match[2].lower()]
        if value > MAX_NUMBER:
            what = f"number exceeds integer limits (max {MAX_NUMBER})"
            self._broken(match.start(), match.end(), what)
            return
        self.kind, self.number, self._end = Kind.NUMBER, value, match.end()

    def _quoted(self, text: str) -> None:
        match = _QUOTED.match(text, self.at)
        if match is None:
            self._broken(self.at, len(text), "end of file before end of quoted string")
            return
        value = match[1]
        if "\\" in value:
            value = _ESCAPE.sub(r"\1", value)
        self._string(value, match.end(), "quoted string")

    def _multi_line(self, text: str, head: re.Match[str]) -> None:
        at = head.end()
        if head[1] is None:
            next_up = "the end of the file" if at >= len(text) else f"'{text[at]}'"
            what = f"invalid character {next_up} after 'text:' in multiline string"
            self._broken(self.at, at, what)
            return
        end = self._dot_line(text, at)
        if end is None:
            self._broken(self.at, len(text), "end of file before end of multi-line string")
            return
        value = text[at : end.start()]
        if value.startswith(".."):
            value = value[1:]
        self._string(value.replace("\n..", "\n."), end.end(), "multi-line string")

    @staticmethod
    def _dot_line(text: str, at: int) -> re.Match[str] | None:
        """The line that is only a dot."""
        while True:
            if text.startswith(".", at):
                rest = _LINE_END.match(text, at + 1)
                if rest is not None:
                    return _DOT.match(text, at)
                if at + 1 == len(text):
                    return None
            line_end = text.find("\n.", at)
            if line_end < 0:
                return None
            at = line_end + 1

    def _string(self, value: str, end: int, what: str) -> None:
        if "\0" in value:
            self._broken(self.at, end, f"encountered NUL character in {what}")
            return
        if "\n" in value or "\r" in value:
            value = _LINE_END.sub("\n", value)
            if "\r" in value:
                problem = f"found stray carriage-return (CR) character in {what}"
                self._broken(self.at, end, problem)
                return
            value = value.replace("\n", "\r\n")
        if len(value) > self._limits.string_octets:
            limit = self._limits.string_octets
            self._broken(self.at, end, f"{what} is too long (longer than {limit} octets)")
            return
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            self._broken(self.at, end, f"{what} is not UTF-8")
            return
        self.kind, self.text, self._end = Kind.STRING, value, end

    def _garbage(self, text: str) -> None:
        match = _GARBAGE.match(text, self.at)
        self._end = match.end() if match is not None else self.at + 1
        character = text[self.at].encode("ascii", "backslashreplace").decode()
        self._source.report(self.at, f"unexpected character(s) starting with '{character}'")
        self.kind = Kind.GARBAGE


_DOT: Final = re.compile(r"\.\r?\n")
