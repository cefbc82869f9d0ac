"""Commands inside the selected mailbox that turn CONDSTORE on: FETCH, STORE, SEARCH, SORT and THREAD (RFC 7162 §3.1).

They go to the selected backend as all others do. It tells mod-sequences until the connection ends, and so must all others
that the session goes to.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from murder.errors import BadSyntax, Code, Refusal
from murder.model.query.fetch import Attribute
from murder.model.query.search import SearchRequest, uses_modseq
from murder.roles.frontend.imap.dialogue import FrontendImap, run_selected
from murder.roles.frontend.imap.internal import want_modseqs
from murder.serve.arguments import arguments
from murder.serve.client import Running
from murder.wire.imap.command import Command
from murder.wire.imap.mail.fetch import parse_fetch
from murder.wire.imap.mail.search import parse_search, parse_sort, parse_thread
from murder.wire.imap.mail.store import parse_store
from murder.wire.token import Scanner

MARKS: Final = (b"MODSEQ", b"CHANGEDSINCE")  # of such a command, in capitals
MAY_ASK: Final = re.compile(b"|".join(MARKS), re.IGNORECASE)
SHORTEST: Final = len(b"a FETCH 1 MODSEQ\r\n")  # such a command


def run(dialogue: FrontendImap, command: Command) -> Running:
    """At the selected backend; what asks for mod-sequences is told to all others."""
    if dialogue.wants_modseqs or not MAY_ASK.search(command.octets, command.start):
        return run_selected(dialogue, command)
    return _run(dialogue, command)


async def _run(dialogue: FrontendImap, command: Command) -> None:
    try:
        asks = await arguments(command, _PARSERS[command.name])
    except (BadSyntax, Refusal):
        asks = False  # that is the backend's to say
    selected = dialogue.selected
    if asks and selected is not None:
        await want_modseqs(dialogue, selected.server)
    if dialogue.selected is None:
        raise Refusal(Code.CLOSED, "The selected mailbox has been closed")
    running = run_selected(dialogue, command)
    if running is not None:
        await running


def _fetches(scanner: Scanner) -> bool:
    return Attribute.MODSEQ in parse_fetch(scanner, by_uid=True).items


def _stores(scanner: Scanner) -> bool:
    return parse_store(scanner).unchanged_since is not None


def _with(parse: Callable[[Scanner], SearchRequest]) -> Callable[[Scanner], bool]:
    return lambda scanner: uses_modseq(parse(scanner).key)


_PARSERS: Final[Mapping[bytes, Callable[[Scanner], bool]]] = MappingProxyType(
    {
        prefix + name: parse
        for prefix in (b"", b"UID ")
        for name, parse in (
            (b"FETCH", _fetches),
            (b"STORE", _stores),
            (b"SEARCH", _with(parse_search)),
            (b"SORT", _with(parse_sort)),
            (b"THREAD", _with(parse_thread)),
        )
    }
)
