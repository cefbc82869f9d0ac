"""ManageSieve, as a proxy speaks it that passes on a whole session (RFC 5804)."""

from typing import Final

from murder.errors import Code
from murder.model.protocol import SIEVE
from murder.net.outgoing.lines import LineUpstream
from murder.net.outgoing.managesieve import begin, enter, tell
from murder.net.outgoing.upstream import Upstreams
from murder.roles.frontend.multiplexor.speech import Offers, Speech, Visitor, Welcome
from murder.wire.managesieve import Kind, format_status

XCLIENT: Final = b"XCLIENT"
UNAUTHENTICATE: Final = b"UNAUTHENTICATE"


async def _begin(upstreams: Upstreams, upstream: LineUpstream, known: Offers | None) -> Offers:
    capabilities = await begin(upstreams, upstream)
    words = frozenset(capabilities)
    return known if known is not None and known.words == words else Offers(words)


async def _log_in(
    upstreams: Upstreams, upstream: LineUpstream, visitor: Visitor, offers: Offers
) -> Welcome:
    if visitor.facts and XCLIENT in offers.words:
        await tell(upstream, visitor.xclient())
    await enter(upstream, visitor.proof(upstreams, upstream))
    return Welcome(format_status(Kind.OK), UNAUTHENTICATE in offers.words)


def _bye(text: str, code: Code) -> bytes:
    return format_status(Kind.BYE, text, b"TRYLATER" if code is Code.UNAVAILABLE else b"")


SIEVE_SPEECH: Final = Speech(SIEVE, _begin, _log_in, _bye)
