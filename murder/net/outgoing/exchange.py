"""What is asked of a backend, and the end of it: own commands under way, replies, who hears of them, and whom all that
serves. `relay` sends and hears."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from murder.errors import UpstreamFailure
from murder.net.bulk import Takes
from murder.wire.fragment import Chunk, Fragmenter, Literal

if TYPE_CHECKING:
    from murder.net.outgoing.relay import ImapUpstream

# What outlasts the selected mailbox at a server: CONDSTORE once it was used (RFC 7162 §3.1), what ENABLE, NOTIFY, COMPRESS
# began. Mostly none of it is there, and a regular expression that looks for it takes a tenth of all that a command costs
LASTING_PARTS: Final = (b"CONDSTORE", b"QRESYNC", b"MODSEQ", b"CHANGEDSINCE")
LASTING_WORDS: Final = (b"ENABLE", b"NOTIFY", b"COMPRESS", b"LANGUAGE")
LASTING: Final = (*LASTING_PARTS, *LASTING_WORDS)
SEARCHED_OCTETS: Final = 4096  # of one write, for these: of what is longer nobody knows
# A line that ends a command, and is neither an untagged response nor one to a command of our own (`_prefix`)
STRAY: Final = re.compile(rb"(?im)^(?!\* |\+|M[0-9a-f]{8}-)[^ \r\n]++ ++(?:OK|NO|BAD)\b")
MAX_COLLECTED: Final = 4 * 1024 * 1024  # octets of untagged responses kept for one own command
RESPONSE_OCTETS: Final = 64  # that each costs beside its own: 4 MiB of empty ones would be 40
MAX_GREETING: Final = 64 * 1024  # octets of a line of somebody who has not said who they are
MAX_LINE: Final = 4 * 1024 * 1024  # a SEARCH answer of a large mailbox


@dataclass(slots=True)
class Reply:
    """The end of a command. `octets` is the tagged line; `untagged` what was collected before it."""

    word: bytes
    code: bytes
    text: str
    octets: bytes
    untagged: list[bytes] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return self.word == b"OK"


def parse_reply(line: bytes, untagged: list[bytes] | None = None) -> Reply:
    """From a tagged line."""
    _, _, rest = line.rstrip(b"\r\n").partition(b" ")
    word, _, text = rest.partition(b" ")
    code = b""
    if text.startswith(b"["):
        code, _, text = text[1:].partition(b"]")
    return Reply(word.upper(), code, text.strip().decode("utf-8", "replace"), line, untagged or [])


Untagged = Callable[[bytes], None] | None
Into = Callable[[Literal], Callable[[bytes], object] | None] | None
"""Asked about a literal of an answer: who takes its octets as they come; None: it is collected. Behind one that was taken,
the rest of its response is a response of its own. May raise BadSyntax: the connection ends."""


class InternalCommand:
    """An own command under way."""

    __slots__ = (
        "_into",
        "_taker",
        "began_at",
        "collected",
        "fragmenter",
        "future",
        "size",
        "tag",
        "untagged",
    )

    def __init__(
        self,
        tag: bytes,
        untagged: Untagged,
        max_message: int,
        into: Into = None,
    ) -> None:
        self.tag = tag
        self.untagged = untagged
        self._into = into
        self._taker: Callable[[bytes], object] | None = None
        self.collected: list[bytes] = []
        self.size = 0
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        most = max_message if untagged is not None else MAX_COLLECTED
        line = MAX_LINE if tag else MAX_GREETING
        self.fragmenter = Fragmenter(line, most + line if tag else line, 0)
        self.began_at = 0.0  # set with the first wait

    def meet(self, literal: Literal) -> None:
        """Raises BadSyntax."""
        self._taker = self._into(literal) if self._into is not None else None
        if self._taker is None:
            self.fragmenter.accept()
        else:
            self.fragmenter.stream()

    def take(self, chunk: Chunk) -> None:
        if self._taker is not None:
            self._taker(chunk.data)


Hears = Callable[[bytes | UpstreamFailure], None]
"""Who hears of the end of a relayed command without a future: its tagged line, or why there is none."""


class Asker(Protocol):
    """Who has asked something without a task that waits."""

    def heard(self, upstream: "ImapUpstream", line: bytes, failure: UpstreamFailure | None) -> None:
        """The tagged line; or there is none, and why. What else has come with it is passed on when this returns."""
        ...


class Keeper(Protocol):
    """Where connections wait for their next user: a pool."""

    def forget(self, upstream: "ImapUpstream") -> None:
        """It does not wait any more."""
        ...


class ClientConnection(Takes, Protocol):
    """What an upstream uses of its client's connection: see `Connection`."""

    @property
    def is_plain(self) -> bool: ...
    @property
    def gathered(self) -> list[bytes]: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def writing_paused(self) -> bool: ...


class Client:
    """Whom an upstream serves: the client's connection, and what to do when things end."""

    connection: ClientConnection
    # its commands are relayed as they come: it need not hear that all are answered
    is_flowing = False

    @property
    def origin(self) -> tuple[str, int] | None:
        """The client's address and port, where there is one."""
        return None

    @property
    def is_full(self) -> bool:
        """Whether it takes nothing more for now of what own commands bring it; `client_writable` tells of the end."""
        return False

    def send(self, data: bytes) -> None:
        """To the client, together with what else is said in this turn."""
        self.connection.write(data)

    def upstream_idle(self, upstream: "ImapUpstream") -> None:
        """No command is in flight any more, or its write buffer has drained."""

    def writable(self) -> None:
        """It takes octets again."""

    def upstream_left(self, upstream: "ImapUpstream", name: bytes) -> None:
        """A mailbox that is watched there has moved to another backend; `name` as the client writes it."""

    def upstream_lost(
        self, upstream: "ImapUpstream", tags: list[bytes], mid_response: bool
    ) -> None:
        """The backend has gone with these commands of the client unanswered."""
