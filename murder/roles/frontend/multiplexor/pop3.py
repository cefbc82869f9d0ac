"""POP3, as a proxy speaks it that passes on a whole session: XCLIENT where it is taken, AUTH, or USER and PASS."""

import re
from typing import Final

from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind
from murder.model.protocol import POP3
from murder.net.outgoing.lines import LineUpstream, prove
from murder.net.outgoing.proving import cure_of
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.multiplexor.speech import Offers, Speech, Visitor, Welcome, shown
from murder.serve.pop3 import CODES
from murder.wire.pop3 import err

MAX_CAPABILITIES: Final = 100
XCLIENT: Final = b"XCLIENT"
_TEMPORARY: Final = re.compile(rb"(?i)-ERR \[(?:SYS/TEMP|LOGIN-DELAY)")


async def _begin(upstreams: Upstreams, upstream: LineUpstream, known: Offers | None) -> Offers:
    greeting = await upstream.line()
    if not greeting.startswith(b"+OK"):
        raise upstream.failure(UpstreamKind.LOST, f"it greets with {shown(greeting)}")
    if upstream.address.tls == "starttls":
        upstream.send(b"STLS\r\n")
        if not (await upstream.line()).startswith(b"+OK"):
            raise upstream.failure(UpstreamKind.TLS, "it refuses STLS")
        await upstream.starttls(upstreams)
    if known is not None:
        return known
    words = {XCLIENT} if b"[XCLIENT]" in greeting.upper() else set()
    upstream.send(b"CAPA\r\n")
    if (await upstream.line()).startswith(b"+OK"):
        for _ in range(MAX_CAPABILITIES):
            line = (await upstream.line()).upper()
            if line == b".":
                return Offers(frozenset(words))
            word, _, rest = line.partition(b" ")
            words |= (
                {b"AUTH=" + mechanism for mechanism in rest.split()} if word == b"SASL" else {word}
            )
        raise upstream.failure(UpstreamKind.PROTOCOL, "it offers too much")
    return Offers(frozenset(words))


async def _log_in(
    upstreams: Upstreams, upstream: LineUpstream, visitor: Visitor, offers: Offers
) -> Welcome:
    if visitor.facts and XCLIENT in offers.words:
        upstream.send(visitor.xclient())
        await upstream.line()  # who is not believed may go on all the same
    if visitor.utf8:
        upstream.send(b"UTF8\r\n")
        if not (await upstream.line()).startswith(b"+OK"):
            raise upstream.failure(UpstreamKind.PROTOCOL, "it refuses UTF8")
    proof = visitor.proof(upstreams, upstream)
    if visitor.password is None or b"AUTH=PLAIN" in offers.words:
        answer = await prove(upstream, proof, b"+ ")
    else:
        words = (visitor.user.encode("utf-8", "surrogateescape"), visitor.password)
        if any(octet in word for octet in b"\r\n\0" for word in words):
            raise upstream.failure(UpstreamKind.AUTH, "no line can carry this name or password")
        upstream.send(b"USER " + words[0] + b"\r\n")
        answer = await upstream.line()
        if not answer.startswith(b"+OK"):
            raise _refused(upstream, answer)
        upstream.send(b"PASS " + words[1] + b"\r\n")
        answer = await upstream.line()
    if not answer.startswith(b"+OK"):
        raise _refused(upstream, answer, proof.cure)
    return Welcome(answer)


def _refused(upstream: LineUpstream, answer: bytes, cure: str = "") -> UpstreamFailure | Refusal:
    if answer.upper().startswith(b"-ERR [IN-USE]"):
        return Refusal(Code.IN_USE, "Another session has your maildrop open")
    kind = UpstreamKind.AUTH_TEMPORARY if _TEMPORARY.match(answer) else UpstreamKind.AUTH
    text = f"it does not let the user in: {shown(answer)}"
    return upstream.failure(kind, text, cure_of(cure, answer))


def _bye(text: str, code: Code) -> bytes:
    return err(text, CODES[code])


POP3_SPEECH: Final = Speech(POP3, _begin, _log_in, _bye)
