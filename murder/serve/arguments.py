"""The arguments of a command, parsed without keeping anybody waiting.

A client may send a line of a mebibyte: a set of 150,000 numbers, an item named 100,000 times. Parsing that takes a tenth of
a second, and so it is done `aside`; the parsers let a thread be interrupted between their pieces.
"""

from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from murder.net.turns import aside
from murder.wire.imap.command import Command
from murder.wire.token import Scanner

LONG_OCTETS: Final = 16 * 1024  # of a command: parsing it is some milliseconds

P = ParamSpec("P")
T = TypeVar("T")


async def arguments(
    command: Command, parse: Callable[Concatenate[Scanner, P], T], *more: P.args, **named: P.kwargs
) -> T:
    """What `parse` makes of them. Raises whatever it raises: BadSyntax, Refusal."""
    scanner = Scanner(command.octets, command.start)
    if len(command.octets) > LONG_OCTETS:
        return await aside(parse, scanner, *more, **named)
    return parse(scanner, *more, **named)
