"""One TCP connection, accepted or opened: octets in to a receiver, octets out with back-pressure, TLS.

Callbacks, no task: an idle connection costs its transport and these few slots. uvloop reads for all connections into one
buffer of its own and hands over `bytes`: for the small reads of which mail consists that is cheaper than a buffer of ours
(asyncio.BufferedProtocol), whose octets would be copied right afterwards in any case.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import select
import socket
import ssl
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from murder.model.address import MAX_HOPS
from murder.net.ended import Ended, Gone
from murder.net.handshakes import HANDSHAKES
from murder.net.tls import HalfOpenTls, PeerCertificate, beginning, peer_of
from murder.net.turns import stand_in_line

INFLATE_OCTETS: Final = 64 * 1024  # inflated in one turn of the loop, whatever it would blow up to
WRITE_HIGH_OCTETS: Final = 256 * 1024  # the writer waits; a 10 MiB FETCH has no more in memory
WRITE_LOW_OCTETS: Final = 64 * 1024
# so many peers that take nothing: from here on others are written less ahead, which costs a fifth more for each octet
CROWD: Final = 32
CROWDED_HIGH_OCTETS: Final = 64 * 1024
GATHER_OCTETS: Final = 64 * 1024  # of small writes, sent as one
TLS_HANDSHAKE_S: Final = 15.0
STRANGER_TLS_OCTETS: Final = 16 * 1024  # of who is not read, not yet decrypted (uvloop: 256 KiB)
UNREAD_TLS_OCTETS: Final = 64 * 1024  # likewise, of whom we know
STUCK_WRITE_S: Final = 120.0  # a peer that takes nothing for so long is gone

DEFLATE_WINDOW: Final = -13  # raw, 8 KiB of history: a tenth of zlib's default memory
DEFLATE_MEMORY: Final = 6
QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux

_numbers = itertools.count(1)
_PROCESS: Final = f"{os.getpid():x}-"  # a node's are started anew, none is a copy of another


class Receiver(Protocol):
    """Who gets what a connection brings."""

    def begin(self) -> None:
        """The connection stands (TLS too, where it is implicit)."""
        ...

    def received(self, data: bytes) -> None:
        """Octets have come, never none."""
        ...

    def writable(self) -> None:
        """The write buffer has drained below its low mark after having been above its high one."""
        ...

    def lost(self, error: Exception | None) -> None:
        """It is over. Called once."""
        ...


@runtime_checkable
class HalfCloses(Protocol):
    """A receiver that still answers after its peer has closed its half of the connection."""

    def input_ended(self) -> bool:
        """The peer sends no more. Whether the connection stays open; the receiver then closes it."""
        ...


class _Crowd:
    """How many connections of this process wait for their peers."""

    waiting = 0


def is_crowded() -> bool:
    """Whether many peers do not take what they were written."""
    return _Crowd.waiting >= CROWD


_ENDED: Final = Ended()
_NOT_YET: Final = Ended()
_GONE: Final = Gone()


def untapped(transport: Any) -> Any:
    """What is traced has others before its transport."""
    while (inner := getattr(transport, "untapped", None)) is not None:
        transport = inner
    return transport


def _unheard(_: bytes) -> None:
    """Before there is a receiver, and behind it."""


_UNHEARD: Final = functools.partial(_unheard)


class Connection(asyncio.Protocol):
    """See the module. `cid` names it in every log line and, over ID, in the backend's."""

    __slots__ = (
        "__weakref__",
        "_deflate",
        "_deflated",
        "_drained",
        "_finished",
        "_gathered_octets",
        "_handshake",
        "_inflate",
        "_inflates",
        "_input_has_ended",
        "_is_held_off",
        "_lost",
        "_make_receiver",
        "_may_have_tls",
        "_on_lost",
        "_peer_has_ended",
        "_receiver",
        "attempt",
        "attempts",
        "certificate",
        "cid",
        "data_received",
        "gathered",
        "hops_left",
        "is_held_back",
        "is_narrow",
        "is_plain",
        "is_tls",
        "most_unread",
        "most_unwritten",
        "on_known",
        "peer",
        "peer_port",
        "through",
        "transport",
        "user_certificate",
        "writing_paused",
    )

    data_received: "functools.partial[None]"  # see `_hand_over`
    transport: asyncio.Transport
    # uvloop asks every protocol for it; where there is none, that costs an exception each time
    get_buffer = None

    def __init__(
        self,
        make_receiver: "Callable[[Connection], Receiver]",
        on_lost: "Callable[[Connection], None] | None" = None,
        *,
        may_have_tls: bool = True,
    ) -> None:
        """`may_have_tls`: when it is made. One without, of whose end nobody hears, has no `peer`: it may not stand yet."""
        self._make_receiver = make_receiver
        self._may_have_tls = may_have_tls
        self._on_lost = on_lost
        self.data_received = functools.partial(_unheard)
        self._receiver: Receiver = _NOT_YET
        self._drained: asyncio.Future[None] | None = None
        self._handshake: asyncio.Future[asyncio.Transport | None] | None = None
        self._lost = self._finished = self.writing_paused = self._is_held_off = False
        self.is_plain = True  # what is written goes to the transport as it is; see `write`
        self._peer_has_ended = self._input_has_ended = False  # the latter under TLS
        self.cid = f"{_PROCESS}{next(_numbers):x}"
        self.peer, self.peer_port = "", 0
        self.through: tuple[str, int] | None = None  # the proxy that has told who `peer` is
        self.hops_left = MAX_HOPS  # proxies that the session may go through still
        self.is_tls, self.attempts = False, 0  # to log in, so far
        self.attempt: tuple[str, float] | None = None  # the one that is under way: by what, since
        self.on_known: Callable[[Connection], None] | None = None
        self.most_unread: int | None = UNREAD_TLS_OCTETS
        # `write_at_most`; who sets the transport's limit without that step sets this, too
        self.most_unwritten = WRITE_HIGH_OCTETS
        self.is_narrow = False  # it is written little ahead, as many take nothing
        self.certificate: PeerCertificate | None = None
        self.user_certificate = b""  # DER: of a user, who is no node by it
        self._deflate: zlib._Compress | None = None
        self._inflate: zlib._Decompress | None = None
        self._deflated = b""  # received, not yet inflated: then nothing more is read
        self._inflates = False  # the next turn is asked for
        self.is_held_back = False  # the receiver has paused the reading
        self.gathered: list[bytes] = []
        self._gathered_octets = 0

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses of it
        self.transport.set_write_buffer_limits(WRITE_HIGH_OCTETS, WRITE_LOW_OCTETS)
        is_asked = self._may_have_tls or self._on_lost is not None
        peer = transport.get_extra_info("peername") if is_asked else None
        if type(peer) is tuple:
            self.peer, self.peer_port = peer[0], peer[1]
        if self._may_have_tls and transport.get_extra_info("ssl_object") is not None:
            self._note_tls()
        receiver = self._receiver = self._make_receiver(self)  # TCP_NODELAY is set: loops do that
        if not self._lost:  # as `_hand_over`
            self.data_received.__setstate__((receiver.received, (), {}, None))  # type: ignore[attr-defined]  # as pickle
        receiver.begin()

    @property
    def receiver(self) -> Receiver:
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        if self._receiver is not _ENDED:
            self._receiver = receiver
            self._hand_over()

    def _hand_over(self) -> None:
        """What comes goes to the receiver with no step of Python's between. A loop keeps what `data_received` is when the
        protocol is set, and to set it again costs two system calls: so that stays, and calls another method from here on."""
        if not self._lost:
            heard = self._receiver.received if self._inflate is None else self.inflate
            self.data_received.__setstate__((heard, (), {}, None))  # type: ignore[attr-defined]  # as pickle does

    def eof_received(self) -> bool:
        """Under TLS: see `_tls_ended`. TCP that ends without its close_notify was cut off, and the loop closes it."""
        self._peer_has_ended = True
        # both have ended; or the loop ends it in any case, and says so in the log
        if self._finished or self.is_tls:
            return False
        input_ended: Callable[[], bool] | None = getattr(self._receiver, "input_ended", None)
        return input_ended is not None and input_ended()

    def _tls_ended(self) -> None:
        """The peer's close_notify has come, within the reading of what came before it. TCP is read no further: its end may
        follow at once, and the loop would take that for the end of the connection."""
        self._input_has_ended = True
        self._limit_tls(0)
        asyncio.get_running_loop().call_soon(self._end_input)

    def _tls_has_more(self) -> None:
        """Many records have come at once, and not all have been read: the others' turn."""
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._lost and self.transport.is_reading():  # else when it does again
            self.transport.pause_reading()
            self.transport.resume_reading()

    def _end_input(self) -> None:
        if not (isinstance(self._receiver, HalfCloses) and self._receiver.input_ended()):
            self.close()

    def pause_writing(self) -> None:
        if not self.writing_paused:
            self.writing_paused = True
            _Crowd.waiting += 1

    def resume_writing(self) -> None:
        if self.writing_paused:
            self.writing_paused = False
            _Crowd.waiting -= 1
            if self.is_narrow and _Crowd.waiting < CROWD:
                self.is_narrow = False
                self._limit_unwritten(self.most_unwritten)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.is_plain = False
        if self.writing_paused:
            _Crowd.waiting -= 1
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the peer has gone"))
            self._drained.exception()  # somebody may have stopped waiting
        self._receiver.lost(exc)
        if self._on_lost is not None:
            self._on_lost(self)
        self.transport = _GONE  # a handler may be busy for long yet, and what TLS has read goes with the transport
        self._receiver = _ENDED
        self.data_received = _UNHEARD

    # --- what receivers call

    @property
    def is_lost(self) -> bool:
        return self._lost

    @property
    def local_address(self) -> tuple[str, int]:
        """Where it came in; empty and 0 where that is no address."""
        local = self.transport.get_extra_info("sockname")
        return (local[0], local[1]) if isinstance(local, tuple) else ("", 0)

    def became_known(self) -> None:
        """Its peer has logged in, or is somebody who need not: it counts as a stranger's no longer."""
        if self.on_known is not None:
            on_known, self.on_known = self.on_known, None
            on_known(self)
            if self.is_tls:
                self._limit_tls(self.most_unread)

    def is_a_strangers(self, on_known: "Callable[[Connection], None]") -> None:
        """Until `became_known`, which calls this."""
        self.on_known = on_known
        if self.is_tls:
            self._limit_tls(STRANGER_TLS_OCTETS)

    def read_at_most(self, octets: int) -> None:
        """From now on about so many octets that TLS has not decrypted: for a role whose peers have many connections and send
        much on each. The loop has a buffer of 256 KiB for each otherwise. What it reads in one turn is all that the kernel
        has kept: see `Bounds.receive_octets`."""
        self.most_unread = octets
        if self.on_known is None:
            self._limit_tls(octets)

    def _limit_tls(self, octets: int | None) -> None:
        limit = getattr(self.transport, "set_read_buffer_limits", None)
        if self.is_tls and limit is not None and not self._lost:
            limit(0 if self._input_has_ended else octets)

    def gather(self, data: bytes, *, later: bool = True) -> None:
        """Send with what else is gathered in this turn of the loop: one system call, one packet. Without `later` the
        caller calls `send_gathered` itself."""
        if self._lost:
            return
        if later and not self.gathered:
            asyncio.get_running_loop().call_soon(self.send_gathered)
        self.gathered.append(data)
        self._gathered_octets += len(data)
        if self._gathered_octets >= GATHER_OCTETS:
            self.send_gathered()

    def send_gathered(self) -> None:
        if self.gathered:
            data = self.gathered[0] if len(self.gathered) == 1 else b"".join(self.gathered)
            self.gathered.clear()
            self._gathered_octets = 0
            self.write(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once, behind what is gathered. No error where the peer has gone already. Where the connection
        `is_plain`, and has nothing `gathered`, the hot path writes to the transport itself."""
        if self._lost or self._finished:
            return
        if self.gathered:
            self.send_gathered()
        if _Crowd.waiting >= CROWD and not self.is_narrow:
            self.is_narrow = True
            self._limit_unwritten(self.most_unwritten)
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self.transport.write(data)

    def write_at_most(self, octets: int) -> None:
        """From now on writers wait when so many octets wait for the peer, until it has taken nearly all: for a role whose
        peers have many connections and ask for much on each."""
        if not self._lost:
            self.most_unwritten = octets
            self._limit_unwritten(octets)

    def _limit_unwritten(self, octets: int) -> None:
        if self.is_narrow:
            octets = min(octets, CROWDED_HIGH_OCTETS)
        self.transport.set_write_buffer_limits(octets, octets // 4)

    def pending(self) -> int:
        """Octets written and not yet taken by the kernel."""
        if self._lost:
            return 0
        return self._gathered_octets + self.transport.get_write_buffer_size()

    @property
    def held_back_octets(self) -> int:
        """Octets received and not yet inflated."""
        return len(self._deflated)

    async def drain(self, timeout_s: float = STUCK_WRITE_S) -> None:
        """Wait until the write buffer is low again. Raises ConnectionResetError if the peer has gone or takes
        nothing for `timeout_s` (it is then cut off)."""
        if self._lost:
            raise ConnectionResetError("the peer has gone")
        if not self.writing_paused:
            return
        if self._drained is None or self._drained.done():
            self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._drained)
        except TimeoutError:
            self.reset()
            raise ConnectionResetError("the peer takes no octets") from None

    def pause_reading(self) -> None:
        self.is_held_back = True
        if not self._lost and self.transport.is_reading():
            self.transport.pause_reading()

    def hold_off(self) -> None:
        """Read nothing more until `resume_reading`, TLS records neither: nobody waits for what comes, perhaps for long. That
        the peer goes is not noticed meanwhile."""
        self.pause_reading()
        if not self._is_held_off:
            self._is_held_off = True
            self._limit_tls(0)  # the loop then reads none for TLS

    def resume_reading(self, *, is_turn: bool = False) -> None:
        """A stranger who was held off stands in line: hundreds may be answered at once, each of whom has sent much ahead."""
        self.is_held_back = False
        if self._is_held_off:
            if self.on_known is not None and not is_turn:
                stand_in_line(asyncio.get_running_loop(), self._end_hold_off)
                return
            self._is_held_off = False
            self._limit_tls(self.most_unread if self.on_known is None else STRANGER_TLS_OCTETS)
        if self._deflated:
            self._inflate_later()
        elif not self._lost and not self.transport.is_reading() and not self.transport.is_closing():
            self.transport.resume_reading()

    def _end_hold_off(self) -> None:
        if not self.is_held_back:
            self.resume_reading(is_turn=True)

    def start_deflate(self) -> None:
        """From here on octets are deflated, both ways (RFC 4978). What came behind the command goes to `inflate`."""
        self.send_gathered()
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, DEFLATE_WINDOW, DEFLATE_MEMORY)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self.is_plain = False
        self._hand_over()

    @property
    def is_deflated(self) -> bool:
        return self._inflate is not None

    def inflate(self, data: bytes) -> None:
        """Take deflated octets. They go to the receiver a little in each turn of the loop, whatever they blow up to, and
        while some are left nothing is read. Octets that are no deflate, or come behind its end, end the connection."""
        self._deflated += data
        if not self._inflates:
            self._inflate_some()

    def _inflate_later(self) -> None:
        if not self._inflates and not self._lost:
            self._inflates = True
            asyncio.get_running_loop().call_soon(self._inflate_some)

    def _inflate_some(self) -> None:
        self._inflates = False
        if self._lost or self.is_held_back or self._inflate is None:
            return
        try:
            octets = self._inflate.decompress(self._deflated, INFLATE_OCTETS)
        except zlib.error:
            self.abort()
            return
        self._deflated = self._inflate.unconsumed_tail
        if octets:
            self._receiver.received(octets)
        if self._inflate.eof:
            self.abort()
        elif self._deflated or len(octets) == INFLATE_OCTETS:
            self.transport.pause_reading()
            if not self.is_held_back:
                self._inflate_later()
        elif not self.is_held_back:
            self.resume_reading()

    def acknowledge_now(self) -> None:
        """Tell the peer's kernel that its octets have come. A peer with Nagle's algorithm (Python's imaplib, many a
        mailer, a Cyrus server) holds its next ones back until then, and we have nothing to answer before: 40 ms each."""
        sock = self.transport.get_extra_info("socket")
        if QUICKACK is not None and sock is not None and not self._lost:
            try:  # a line less than contextlib's three calls
                sock.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
            except OSError:
                pass

    def close(self) -> None:
        """Send what is written, then close."""
        if not self._lost:
            self.send_gathered()
            self.transport.close()

    def finish(self) -> None:
        """Send what is written, and its end; then read on, for nothing, until the peer has closed too. Closing at once
        would reset the connection where the peer has just sent something, and could take our last words with it."""
        if self._lost or self._finished:
            return
        if self.is_tls or self._peer_has_ended:  # the end of a session of TLS does the same
            self.close()
            return
        if self.gathered:
            self.send_gathered()
        self._finished = True
        self.is_plain = False
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):
            self.transport.close()
            return
        if self.is_held_back or self._deflated or not self.transport.is_reading():
            self.resume_reading()

    def abort(self) -> None:
        if not self._lost:
            self.transport.abort()
            if self._handshake is not None:  # uvloop never ends that of a transport that is aborted
                self._handshake.cancel()

    def reset(self) -> None:
        """Abort so that the peer's kernel knows it at once (RST): what it has not read yet is void. See `is_reset`."""
        sock = None if self._lost else self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def is_reset(self) -> bool:
        """Whether the peer has aborted, asked of the kernel now: what the loop has read may be older than that."""
        sock = None if self._lost else self.transport.get_extra_info("socket")
        if sock is None:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), 0)  # errors are told unasked
        return bool(poll.poll(0))

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        """Put TLS under this connection. The caller has thrown away (or never read) octets sent before the handshake; those
        that come with its end are read behind this. Raises OSError (which ssl.SSLError is); it is closed then."""
        self.send_gathered()
        self.pause_reading()  # the peer may begin at once, the task below runs a turn later
        if not server_side:
            await self._shake_hands(context, server_side, server_hostname)
            return
        try:
            async with HANDSHAKES.one(self.peer):
                if self._lost:
                    raise ConnectionResetError("the peer has gone before the TLS handshake")
                await self._shake_hands(context, server_side, server_hostname)
        except TimeoutError:
            self.abort()
            raise

    async def _shake_hands(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None
    ) -> None:
        handshake = asyncio.ensure_future(
            asyncio.get_running_loop().start_tls(
                untapped(self.transport),
                self,
                context,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
            )
        )
        self._handshake = handshake
        try:
            with beginning(context):
                await asyncio.wait([handshake])
            transport = None if handshake.cancelled() else handshake.result()
            if transport is None or self._lost:
                raise ConnectionResetError("the peer has gone during the TLS handshake")
        except OSError as error:
            self.transport.abort()
            if not self._lost:  # the loop does not tell us: the handshake's protocol stood between
                self.connection_lost(error)
            raise
        finally:
            handshake.cancel()  # where who waited was cancelled
            self._handshake = None
        self.transport = transport
        self.is_held_back = False  # this one reads
        self._limit_unwritten(self.most_unwritten)
        self._note_tls()

    def _note_tls(self) -> None:
        tls = self.transport.get_extra_info("ssl_object")
        if tls is not None:
            self.is_tls = True
            certificate = peer_of(tls, self)
            if certificate is not None and certificate.is_user:
                self.user_certificate = certificate.octets
            else:
                self.certificate = certificate
            tls.on_close_notify = self._tls_ended
            self._limit_tls(self.most_unread if self.on_known is None else STRANGER_TLS_OCTETS)
            if isinstance(tls, HalfOpenTls):
                tls.begin_reading(self._tls_has_more)
