"""Tag, name and raw arguments of an IMAP command: all that is needed to find who handles it, or to relay it.

RFC 3501 §9: `command = tag SP (…) CRLF`. Arguments are left as octets; each family's file parses its own.
"""

import re
from dataclasses import dataclass
from typing import Final

from murder.errors import BadSyntax
from murder.wire.fragment import Literal

MAX_TAG_OCTETS: Final = 256  # Cyrus and Dovecot take any; the longest seen from a client has 40

# tag SP name; tag = 1*<any ASTRING-CHAR except "+">
COMMAND: Final = re.compile(
    rb'([^(){ %*"\\+\x00-\x20\x7f-\xff]{1,256}) ((?:[Uu][Ii][Dd] )?[A-Za-z0-9_.=-]{1,40})(?= |\r?\n)'
)
_TAG: Final = re.compile(rb'([^(){ %*"\\+\x00-\x20\x7f-\xff]{1,256})(?= |\r?\n)')


@dataclass(slots=True)
class Command:
    """One command. `octets` is the whole message with its literals in place and its line end; arguments begin at
    `start` (at the SP behind the name, or at the line end). With `literal` set the message is not whole: it ends with
    that literal's announcement and the rest comes as a stream. `name` is in upper case, `UID FETCH` one name.
    """

    tag: bytes
    name: bytes
    octets: bytes
    start: int
    literal: Literal | None = None


def parse_command(octets: bytes, literal: Literal | None = None) -> Command:
    """Read tag and name. Raises BadSyntax; `tag_of` then gives the tag to answer with."""
    match = COMMAND.match(octets)
    if match is None:
        only_tag = _TAG.match(octets)
        if only_tag is None:
            raise BadSyntax("a command begins with a tag and a space", 0)
        raise BadSyntax("a command name is expected behind the tag", only_tag.end())
    return Command(match.group(1), match.group(2).upper(), octets, match.end(), literal)


def tag_of(octets: bytes) -> bytes:
    """The tag of a message that may be no command; `*` where it has none."""
    match = _TAG.match(octets)
    return match.group(1) if match else b"*"
