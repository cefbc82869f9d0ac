"""MUPDATE as octets: commands, responses and the banner, both directions (RFC 3656).

Input is one whole message as `wire.fragment` cuts it, literals in place. Where the RFC contradicts itself:

* Text (§2.2) and grammar (§5, by ACAP) differ on `\\` in a quoted string. We read it as ACAP and Cyrus do (an escape before
  `"` and `\\`), and never send it: such a string goes as a literal.
* DEACTIVATE stands in §4.3 and is missing from §5: it is `"DEACTIVATE" SP string SP string`.
* §4.11's example shows RESERVE with three strings, §3.6 and §5 give it two: we send two and read either.
* Mechanism names are atoms in §3.8 and §5, strings in §4.2, quoted in Cyrus' banner: we read both, in the banner we
  send them as Cyrus does, because its clients take both.
* Tags are alphanumeric and shorter than 15 octets (§2, §2.1), or any atom (§5): any atom of up to 14 octets is read.

Cyrus sends every argument as a non-synchronising literal, also from server to client, and bare text after some
OK and NO responses (COMPRESS, STARTTLS, cancelled authentication): read here too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from murder.errors import BadSyntax
from murder.wire.literal import SIZE

MAX_TAG_OCTETS: Final = 14  # RFC 3656 §2.1: "less than 15"
# §2: a line of 1024 octets is sure to pass, and a line has three strings
MAX_QUOTED_OCTETS: Final = 900

MASTER: Final = "(master)"
GO_AHEAD: Final = b"+ go ahead\r\n"  # §2.2
# What our master begins a NO with that is not about the command: it cannot reach what the list is kept on.
UNAVAILABLE: Final = "[UNAVAILABLE] "
# And a NO to a FOLLOW whose mark is only too old: what the list is without since then was removed, and is not lost.
FORGOTTEN: Final = "[FORGOTTEN] "


class Verb(Enum):
    """Commands: RFC 3656 §4, then what Cyrus adds, then what we add (`FOLLOW`, `FORCE`, `EPOCH`,
    `BELOW`, `HEADS`, `GRANTED`, `PREFIX`, `SERVERS`)."""

    __hash__ = object.__hash__  # of C: looked up several times for each command

    ACTIVATE = b"ACTIVATE"
    AUTHENTICATE = b"AUTHENTICATE"
    DEACTIVATE = b"DEACTIVATE"
    DELETE = b"DELETE"
    FIND = b"FIND"
    LIST = b"LIST"
    LOGOUT = b"LOGOUT"
    NOOP = b"NOOP"
    RESERVE = b"RESERVE"
    STARTTLS = b"STARTTLS"
    UPDATE = b"UPDATE"
    COMPRESS = b"COMPRESS"
    FOLLOW = b"FOLLOW"
    FORCE = b"FORCE"
    EPOCH = b"EPOCH"
    BELOW = b"BELOW"
    HEADS = b"HEADS"
    GRANTED = b"GRANTED"
    PREFIX = b"PREFIX"
    SERVERS = b"SERVERS"


class Arity(NamedTuple):
    """How many arguments a command takes, and whether bare atoms are read for them."""

    least: int
    most: int
    atoms: bool = False


MAX_PARTIAL_HOSTS: Final = 30  # as Cyrus has it
ARITY: Final = {
    Verb.ACTIVATE: Arity(3, 3),
    Verb.AUTHENTICATE: Arity(1, 2, atoms=True),
    Verb.DEACTIVATE: Arity(2, 2),
    Verb.DELETE: Arity(1, 1),
    Verb.FIND: Arity(1, 1),
    Verb.LIST: Arity(0, 1),
    Verb.LOGOUT: Arity(0, 0),
    Verb.NOOP: Arity(0, 0),
    Verb.RESERVE: Arity(2, 2),
    Verb.STARTTLS: Arity(0, 0),
    Verb.UPDATE: Arity(0, MAX_PARTIAL_HOSTS),  # PARTIAL-UPDATE: servers whose mailboxes are wanted
    Verb.COMPRESS: Arity(1, 1, atoms=True),
    Verb.FOLLOW: Arity(0, 1),  # our extension: the mark to go on from
    Verb.FORCE: Arity(3, 3),  # our extension: ACTIVATE whoever has it, for administrators
    Verb.EPOCH: Arity(
        2, 2
    ),  # our extension: a server and how far its store has come; OK tells the largest so far
    Verb.BELOW: Arity(1, 1),  # our extension: the rows of a mailbox and of all below it
    # our extension: so many rows behind a name ("": from the first one on), all with empty access lists
    Verb.HEADS: Arity(2, 2),
    # our extension: the active rows whose access list has this identifier, or "-" and it
    Verb.GRANTED: Arity(1, 1),
    Verb.PREFIX: Arity(1, 1),  # our extension: the rows whose names begin so
    # our extension: a row for each server that has any, called as it is, at it; how many it has is in place of the ACL
    Verb.SERVERS: Arity(0, 0),
}
# answered by rows, as many as there are
OUR_LISTS: Final = (Verb.BELOW, Verb.HEADS, Verb.GRANTED, Verb.PREFIX, Verb.SERVERS)
LISTS: Final = frozenset({Verb.LIST, *OUR_LISTS})
AS_OF_NOW: Final = frozenset({Verb.BELOW, Verb.GRANTED, Verb.PREFIX})  # what is acted upon
TELLING: Final = frozenset({Verb.FIND, *LISTS, Verb.UPDATE, Verb.FOLLOW})
_VERBS: Final = {verb.value: verb for verb in Verb}
# as an announcement has them, one behind the other
PLAIN_WRITES: Final = frozenset({Verb.RESERVE, Verb.ACTIVATE, Verb.DEACTIVATE, Verb.DELETE})


class Command(NamedTuple):
    """One command, its strings decoded."""

    tag: bytes
    verb: Verb
    args: tuple[bytes, ...]


class Kind(Enum):
    """Responses: RFC 3656 §3; `POSITION` and `LACKING` are ours, and go only to who has sent FOLLOW."""

    OK = b"OK"
    NO = b"NO"
    BAD = b"BAD"
    BYE = b"BYE"
    MAILBOX = b"MAILBOX"
    RESERVE = b"RESERVE"
    DELETE = b"DELETE"
    POSITION = b"POSITION"
    LACKING = b"LACKING"
    AUTH = b"AUTH"
    STARTTLS = b"STARTTLS"
    GO_AHEAD = b"+"
    UNKNOWN = b""


_KINDS: Final = {kind.value: kind for kind in Kind}
_STATUS: Final = frozenset({Kind.OK, Kind.NO, Kind.BAD, Kind.BYE})


class Response(NamedTuple):
    """One response. `args` are its strings; a status with bare text has that as its only one."""

    tag: bytes
    kind: Kind
    args: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """What a status response says, for people."""
        return self.args[-1].decode("utf-8", "backslashreplace") if self.args else ""


# ATOM-CHAR of ACAP (RFC 2244 §8): any 7-bit octet but controls, SP, ( ) { % * " \ . "+" begins a continuation.
_ATOM: Final = rb'[^\x00-\x20\x7f-\xff(){%*"\\]'
_TAG: Final = re.compile(rb"(" + _ATOM + rb"+)(?: |(?=\r?\n))")
_WORD: Final = re.compile(rb"([A-Za-z]+)(?= |\r?\n)")
# string = quoted / literal, after the space before it; some clients send two
_STRING: Final = re.compile(
    rb' +(?:"((?:[^"\\\r\n\x00]|\\[^\r\n\x00])*+)"|\{(' + SIZE + rb")\+?\}\r?\n)"
)
_BARE: Final = re.compile(rb" +(" + _ATOM + rb"+)(?= |\r?\n)")
_RESPONSE_TAG: Final = re.compile(rb"([^ \r\n]+) ")
_KEYWORD: Final = re.compile(rb"[^ \r\n]+")
_END: Final = re.compile(rb" *\r?\n\Z")
_ESCAPED: Final = re.compile(rb'\\(["\\])')
_QUOTABLE: Final = re.compile(rb"[\t\x20!#-\[\]-\x7e]*\Z")


def parse_command(octets: bytes) -> Command:
    """Read one command. Raises BadSyntax with the offset of what is wrong; `tag_of` has the tag to answer with.

    command = tag SP command-type CRLF
    """
    head = _TAG.match(octets)
    if head is None or head.end(1) > MAX_TAG_OCTETS:
        raise BadSyntax(
            "Need command" if octets in (b"\r\n", b"\n") else "Need a tag of 1 to 14 octets", 0
        )
    word = _WORD.match(octets, head.end())
    if word is None:
        raise BadSyntax("Null command", head.end())
    verb = _VERBS.get(word.group().upper())
    if verb is None:
        raise BadSyntax("Unrecognized command", word.start())
    arity = ARITY[verb]
    args, at = _parse_strings(octets, word.end(), arity.most, arity.atoms)
    if len(args) < arity.least:
        raise BadSyntax("Missing arguments", at)
    if _END.match(octets, at) is None:
        raise BadSyntax(
            "Badly formed arguments" if len(args) < arity.most else "Extra arguments", at
        )
    return Command(head.group(1), verb, args)


# A command whose strings are without line ends, as nearly all are, in one step; the sizes are compared afterwards.
_PLAIN_STRING: Final = rb"(?: \{(" + SIZE + rb')\+\}\r\n([^\r\n{]*)| "([^"\\\r\n\x00]*)")'
PLAIN_COMMAND: Final = re.compile(
    rb"(%b{1,14}) ([A-Z]+)(?:%b(?:%b%b?)?)?\r\n" % (_ATOM, *[_PLAIN_STRING] * 3)
)
PLAIN_FIND: Final = re.compile(rb"(%b{1,14}) FIND%b\r\n" % (_ATOM, _PLAIN_STRING))


def read_plain(match: re.Match[bytes]) -> Command | None:
    """The command that PLAIN_COMMAND has found; None where it takes a second look (`parse_command`)."""
    # each string written out: every command comes through here
    tag, word, size, raw, quoted, size2, raw2, quoted2, size3, raw3, quoted3 = match.groups()
    verb = _VERBS.get(word)
    if (
        verb is None
        or (raw is not None and int(size) != len(raw))
        or (raw2 is not None and int(size2) != len(raw2))
        or (raw3 is not None and int(size3) != len(raw3))
    ):
        return None
    first = quoted if raw is None else raw
    second = quoted2 if raw2 is None else raw2
    third = quoted3 if raw3 is None else raw3
    args: tuple[bytes, ...] = (first, second, third)
    if third is None:
        args = () if first is None else (first,) if second is None else (first, second)
    arity = ARITY[verb]
    return Command(tag, verb, args) if arity.least <= len(args) <= arity.most else None


def plain_write(data: bytes) -> Command | None:
    """The write that is all of this, in its commonest spelling; None of whatever else it is."""
    plain = PLAIN_COMMAND.fullmatch(data)
    command = None if plain is None else read_plain(plain)
    return command if command is not None and command.verb in PLAIN_WRITES else None


def is_plain_write(command: Command) -> bool:
    """Whether it may be carried out together with others of its kind."""
    return command.verb in PLAIN_WRITES


def _parse_strings(octets: bytes, at: int, most: int, atoms: bool) -> tuple[tuple[bytes, ...], int]:
    parsed: list[bytes] = []
    while len(parsed) < most:
        match = _STRING.match(octets, at)
        if match is None:
            bare = _BARE.match(octets, at) if atoms else None
            if bare is None:
                break
            parsed.append(bare.group(1))
            at = bare.end()
            continue
        quoted, size = match.groups()
        at = match.end()
        if quoted is not None:
            parsed.append(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
            continue
        end = at + int(size)
        if end > len(octets):
            raise BadSyntax("A literal is cut off", at)
        parsed.append(octets[at:end])
        at = end
    return tuple(parsed), at


def tag_of(octets: bytes) -> bytes:
    """The tag to answer a malformed command with; `*` where none can be told (RFC 3656 §3.3)."""
    head = _TAG.match(octets)
    return head.group(1) if head is not None and head.end(1) <= MAX_TAG_OCTETS else b"*"


def format_command(tag: bytes, verb: Verb, *args: bytes) -> bytes:
    """A command for a server: quoted strings where that is safe, else non-synchronising literals."""
    return b" ".join((tag, verb.value, *map(string, args))) + b"\r\n"


def string(octets: bytes) -> bytes:
    """One string. Never synchronising: §2.2 asks that of servers, and every server takes `{n+}`."""
    if len(octets) <= MAX_QUOTED_OCTETS and _QUOTABLE.match(octets):
        return b'"' + octets + b'"'
    return b"{%d+}\r\n%b" % (len(octets), octets)


def strings(*args: bytes) -> bytes:
    """Some strings of one line, which together stay below the line length that is sure to pass."""
    if sum(map(len, args)) <= MAX_QUOTED_OCTETS:
        return b" ".join(map(string, args))
    return b" ".join(b"{%d+}\r\n%b" % (len(octets), octets) for octets in args)


# Responses


def format_status(tag: bytes, kind: Kind, text: str) -> bytes:
    """OK, NO, BAD or BYE. Cyrus' clients give up where the text is not exactly one string."""
    octets = text.encode("ascii", "backslashreplace").replace(b"\\", b"/").replace(b'"', b"'")
    octets = octets.translate(_PRINTABLE)[:MAX_QUOTED_OCTETS]
    return b'%b %b "%b"\r\n' % (tag, kind.value, octets)


_PRINTABLE: Final = bytes(octet if 0x20 <= octet < 0x7F else 0x20 for octet in range(256))


def format_mailbox(tag: bytes, name: bytes, raw_location: bytes, raw_acl: bytes) -> bytes:
    """RFC 3656 §3.6."""
    return b"%b MAILBOX %b\r\n" % (tag, strings(name, raw_location, raw_acl))


def format_reserve(tag: bytes, name: bytes, raw_location: bytes) -> bytes:
    """RFC 3656 §3.5: two strings."""
    return b"%b RESERVE %b\r\n" % (tag, strings(name, raw_location))


def format_delete(tag: bytes, name: bytes) -> bytes:
    """RFC 3656 §3.7."""
    return b"%b DELETE %b\r\n" % (tag, string(name))


def format_position(tag: bytes, mark: str) -> bytes:
    """Our extension: all up to here has been sent; FOLLOW with this mark goes on from it."""
    return b'%b POSITION "%b"\r\n' % (tag, mark.encode())


def format_lacking(tag: bytes, count: int, age_s: int) -> bytes:
    """Our extension: so many seconds ago a master came without so many mailboxes that this list had, and may have lost
    them; before the DELETEs of those."""
    return b'%b LACKING "%d" "%d"\r\n' % (tag, count, age_s)


def parse_response(octets: bytes) -> Response:
    """Read one response of a server. Raises BadSyntax. Keywords that we do not know come out as UNKNOWN, because
    before `* OK MUPDATE` they must be ignored (§3.8)."""
    if octets.startswith(b"+"):
        return Response(b"+", Kind.GO_AHEAD, (octets[1:].strip(),))
    head = _RESPONSE_TAG.match(octets)
    if head is None:
        raise BadSyntax("a response begins with a tag", 0)
    tag, at = head.group(1), head.end()
    word = _KEYWORD.match(octets, at)
    if word is None:
        raise BadSyntax("a response has a keyword", at)
    kind = _KINDS.get(word.group().upper(), Kind.UNKNOWN)
    atoms = kind in (Kind.AUTH, Kind.UNKNOWN) or kind in _STATUS
    args, end = _parse_strings(octets, word.end(), 64, atoms)
    if _END.match(octets, end) is None or (kind in _STATUS and len(args) != 1):
        if kind not in _STATUS:
            raise BadSyntax("a response takes strings", end)
        args = (octets[word.end() :].strip(b' "\r\n'),)  # Cyrus' bare texts
    if len(args) < _LEAST.get(kind, 0):
        raise BadSyntax(f"{kind.name} lacks arguments", end)
    return Response(tag, kind, args)


_LEAST: Final = {
    Kind.MAILBOX: 3,
    Kind.RESERVE: 2,
    Kind.DELETE: 1,
    Kind.POSITION: 1,
    Kind.LACKING: 2,
}


# The banner, §3.8


@dataclass(frozen=True, slots=True)
class Banner:
    """What a server says of itself on connection and after STARTTLS. `master` is `(master)` or a MUPDATE URL.

    `mark` is the server's position where it knows FOLLOW, None elsewhere; `force`: it knows FORCE; `lists`: which of
    `OUR_LISTS` it knows.
    """

    host: str = ""
    implementation: str = ""
    version: str = ""
    master: str = MASTER
    mechanisms: tuple[str, ...] = ()
    starttls: bool = False
    compress: bool = False
    partial_update: bool = False
    mark: str | None = None
    force: bool = False
    lists: tuple[Verb, ...] = ()

    @property
    def is_master(self) -> bool:
        return self.master == MASTER


def format_banner(banner: Banner) -> bytes:
    """All lines, in Cyrus' order; its clients read up to the line that begins with `* OK`."""
    mechanisms = b"".join(b' "%b"' % name.encode() for name in banner.mechanisms)
    lines = [b"* AUTH" + mechanisms]
    if banner.starttls:
        lines.append(b"* STARTTLS")
    if banner.compress:
        lines.append(b'* COMPRESS "DEFLATE"')
    if banner.partial_update:
        lines.append(b"* PARTIAL-UPDATE")
    if banner.mark is not None:
        lines.append(b"* FOLLOW " + string(banner.mark.encode()))
    if banner.force:
        lines.append(b"* FORCE")
    lines += [b"* " + verb.value for verb in banner.lists]
    words = (banner.host, banner.implementation, banner.version, banner.master)
    lines.append(b"* OK MUPDATE " + b" ".join(string(word.encode()) for word in words))
    return b"\r\n".join(lines) + b"\r\n"


def parse_banner_line(banner: Banner, octets: bytes) -> tuple[Banner, bool]:
    """Add one line of a banner; True with the last one. Raises BadSyntax where it is no MUPDATE server."""
    word, _, rest = octets.strip().partition(b" ")[2].partition(b" ")
    if not octets.startswith(b"*"):
        raise BadSyntax("a banner line begins with *", 0)
    match word.upper():
        case b"AUTH":
            names = _words(rest)
            return replace(banner, mechanisms=tuple(name.upper() for name in names)), False
        case b"STARTTLS":
            return replace(banner, starttls=True), False
        case b"COMPRESS":
            return replace(banner, compress="DEFLATE" in _words(rest.upper())), False
        case b"PARTIAL-UPDATE":
            return replace(banner, partial_update=True), False
        case b"FOLLOW":
            return replace(banner, mark=(_words(rest) or [""])[0]), False
        case b"FORCE":
            return replace(banner, force=True), False
        case name if (verb := _VERBS.get(name)) in OUR_LISTS:
            return replace(banner, lists=(*banner.lists, verb)), False
        case b"OK":
            words = _words(rest)
            if len(words) < 5 or words[0].upper() != "MUPDATE":
                raise BadSyntax("a MUPDATE banner ends in * OK MUPDATE and four strings", 0)
            return replace(
                banner, host=words[1], implementation=words[2], version=words[3], master=words[4]
            ), True
        case b"BYE" | b"NO" | b"BAD":
            raise BadSyntax(f"the server says {word.decode()}: {rest.decode('ascii', 'replace')}")
        case _:
            return banner, False


def _words(octets: bytes) -> Sequence[str]:
    words, _ = _parse_strings(b" " + octets + b"\r\n", 0, 64, atoms=True)
    return [word.decode("utf-8", "replace") for word in words]
