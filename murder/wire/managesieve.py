"""ManageSieve's grammar, both directions: commands with their strings, and replies (RFC 5804 §4)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from murder.errors import BadSyntax
from murder.wire.literal import LITERAL

MAX_ARGUMENTS: Final = 8  # no command has more than two
XCLIENT: Final = b"XCLIENT"  # a proxy's, as Dovecot has it: its arguments are words, not strings
MAX_WORDS: Final = 16  # of it
MAX_DIGITS: Final = 9  # of a line's number
LINE, COLUMN = "line ", ", column "
MAX_QUOTED_OCTETS: Final = 1024  # RFC 5804 §4: of one quoted string
_KEYWORD: Final = re.compile(rb"([A-Za-z]{1,20})(?= |\r?\n)")
_STRING: Final = re.compile(rb'"((?:[^"\\\r\n\x00]++|\\["\\])*+)"')
_NUMBER: Final = re.compile(rb"[0-9]{1,10}(?= |\r?\n)")
_BLANKS: Final = re.compile(rb" ++")
_END: Final = re.compile(rb" *+\r?\n\Z")
_ESCAPED: Final = re.compile(rb'\\(["\\])')
_TO_ESCAPE: Final = re.compile(rb'(["\\])')
_QUOTABLE: Final = re.compile(rb"[^\r\n\x00]*+\Z")
_STATUS: Final = re.compile(rb"(OK|NO|BYE)(?= |\r?\n)", re.IGNORECASE)
_CODE: Final = re.compile(rb"\(([A-Za-z0-9/_-]++)(?: ++([^)]*+))?\)")


class Kind(Enum):
    """How an answer ends."""

    OK = b"OK"
    NO = b"NO"
    BYE = b"BYE"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its word in upper case, and its strings (and numbers) as octets, without quotes."""

    name: bytes
    args: tuple[bytes, ...] = ()
    octets: bytes = field(default=b"", repr=False)  # as it came, line end included


@dataclass(frozen=True, slots=True)
class ScriptFault:
    """What is wrong with a script, as the text of an answer tells it; line and column are 0 where it does not say where."""

    line: int
    column: int
    text: str

    def __str__(self) -> str:
        if not self.line:
            return self.text
        column = f", column {self.column}" if self.column else ""
        return f"line {self.line}{column}: {self.text}"


@dataclass(frozen=True, slots=True)
class Status:
    """The line that ends an answer. `code` in upper case, `detail` the octets behind it."""

    kind: Kind
    code: bytes = b""
    detail: bytes = b""


# command = word *(SP (string / number)) CRLF
def parse_command(octets: bytes) -> Command:
    """A whole message, literals in place. Raises BadSyntax."""
    word = _KEYWORD.match(octets)
    if word is None:
        raise BadSyntax("a command begins with its name")
    at = word.end()
    if word[1].upper() == XCLIENT:
        words = octets[at:].split()
        if len(words) > MAX_WORDS:
            raise BadSyntax("XCLIENT takes fewer words", at)
        return Command(XCLIENT, tuple(words), octets)
    args: list[bytes] = []
    while _END.match(octets, at) is None:
        blanks = _BLANKS.match(octets, at)
        if blanks is None or len(args) == MAX_ARGUMENTS:
            raise BadSyntax("arguments are strings, with a blank before each", at)
        argument, at = _parse_argument(octets, blanks.end())
        args.append(argument)
    return Command(word[1].upper(), tuple(args), octets)


def parse_string_line(octets: bytes) -> bytes:
    """A line that is one string: what a client says in a SASL exchange (RFC 5804 §2.1). Raises BadSyntax."""
    value, at = _parse_argument(octets, 0)
    if _END.match(octets, at) is None:
        raise BadSyntax("one string was expected")
    return value


def _parse_argument(octets: bytes, at: int) -> tuple[bytes, int]:
    quoted = _STRING.match(octets, at)
    if quoted is not None:
        inner = quoted[1]
        return (_ESCAPED.sub(rb"\1", inner) if b"\\" in inner else inner), quoted.end()
    literal = LITERAL.match(octets, at)
    if literal is not None and not literal[1]:
        end = literal.end() + int(literal[2])
        if end <= len(octets):
            return octets[literal.end() : end], end
    number = _NUMBER.match(octets, at)
    if number is not None:
        return number[0], number.end()
    raise BadSyntax("a string was expected", at)


def format_string(octets: bytes) -> bytes:
    """From a server: quoted, or a literal without `+`."""
    if len(octets) <= MAX_QUOTED_OCTETS and _QUOTABLE.match(octets):
        return b'"' + _TO_ESCAPE.sub(rb"\\\1", octets) + b'"'
    return format_literal(octets)


def format_literal(octets: bytes) -> bytes:
    """A string of the server's: synchronising, whatever is in it (RFC 5804 §4)."""
    return b"{%d}\r\n%b" % (len(octets), octets)


def client_string(octets: bytes) -> bytes:
    """From a client: quoted, or a literal that waits for nobody."""
    if len(octets) <= MAX_QUOTED_OCTETS and _QUOTABLE.match(octets):
        return format_string(octets)
    return b"{%d+}\r\n%b" % (len(octets), octets)


def format_status(kind: Kind, text: str = "", code: bytes = b"") -> bytes:
    """`OK`, `NO` or `BYE`, with a response code (its argument included) and a text."""
    parts = [kind.value]
    if code:
        parts.append(b"(" + code + b")")
    if text:
        parts.append(format_string(text.encode("utf-8", "replace").replace(b"\0", b"?")))
    return b" ".join(parts) + b"\r\n"


def format_faults(faults: Sequence[ScriptFault]) -> str:
    """The text of an answer to PUTSCRIPT and the like: one a line."""
    return "\r\n".join(map(str, faults))


def parse_faults(text: str) -> list[ScriptFault]:
    """The reverse, of any server's text: those of Pigeonhole and Cyrus begin lines with other words."""
    return [_parse_fault(line) for line in map(str.strip, text.splitlines()) if line]


# fault = [words ": "] "line " number [", column " number] ":" text
def _parse_fault(text: str) -> ScriptFault:
    folded = text.lower()
    begin = 0 if folded.startswith(LINE) else folded.find(": " + LINE) + 2
    if begin < 2 and not folded.startswith(LINE):
        return ScriptFault(0, 0, text)
    line, at = _parse_number(text, begin + len(LINE))
    column = 0
    if folded.startswith(COLUMN, at):
        column, at = _parse_number(text, at + len(COLUMN))
    if not line or text[at : at + 1] != ":":
        return ScriptFault(0, 0, text)
    return ScriptFault(line, column, text[at + 1 :].strip())


def _parse_number(text: str, at: int) -> tuple[int, int]:
    """And where it ends; 0 where there is none."""
    end = at
    while end < min(len(text), at + MAX_DIGITS) and text[end] in "0123456789":
        end += 1
    return int(text[at:end] or "0"), end


def format_capabilities(rows: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    """Names with their values, one a line."""
    return b"".join(
        format_string(name) + (b"" if value is None else b" " + format_string(value)) + b"\r\n"
        for name, value in rows
    )


def format_scripts(scripts: Sequence[tuple[str, bool]]) -> bytes:
    """LISTSCRIPTS' lines: names, and whether each is active."""
    return b"".join(
        format_string(name.encode("utf-8", "surrogateescape"))
        + (b" ACTIVE" if is_active else b"")
        + b"\r\n"
        for name, is_active in scripts
    )


def parse_status(line: bytes) -> Status | None:
    """The end of an answer; None for any other line of it. `line` may end in a literal's announcement."""
    word = _STATUS.match(line)
    if word is None:
        return None
    code = _CODE.match(line, word.end() + 1)
    kind = Kind(word[1].upper())
    return Status(kind, code[1].upper(), code[2] or b"") if code is not None else Status(kind)


def parse_status_text(line: bytes) -> str:
    """The words for people at the end of a whole status line; empty where there are none."""
    at = _STATUS.match(line)
    if at is None:
        return ""
    code = _CODE.match(line, at.end() + 1)
    begin = code.end() if code is not None else at.end()
    blanks = _BLANKS.match(line, begin)
    if blanks is None or _END.match(line, begin):
        return ""
    try:
        text, _ = _parse_argument(line, blanks.end())
    except BadSyntax:
        return ""
    return text.decode("utf-8", "replace")


def parse_script_line(line: bytes) -> tuple[str, bool]:
    """One line of LISTSCRIPTS: a name, and whether it is active (RFC 5804 §2.7). Raises BadSyntax."""
    name, at = _parse_argument(line, 0)
    return name.decode("utf-8", "surrogateescape"), line[at:].strip().upper() == b"ACTIVE"


def parse_capability(line: bytes) -> tuple[bytes, bytes] | None:
    """Name (in upper case) and value of a capability's line; None for what is none."""
    try:
        command = parse_command(b"X " + line.rstrip(b"\r\n") + b"\r\n")
    except BadSyntax:
        return None
    if not 1 <= len(command.args) <= 2:
        return None
    return command.args[0].upper(), command.args[1] if len(command.args) == 2 else b""


def format_url(host: str, port: int | None) -> str:
    """Of a server that a client is referred to; `port`: None for the usual one (RFC 5804 §3)."""
    authority = f"[{host}]" if ":" in host else host
    return f"sieve://{authority}" + (f":{port}" if port else "")
