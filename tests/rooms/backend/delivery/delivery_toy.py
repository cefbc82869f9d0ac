"""A site's plugin, as a test puts it into a folder: the subject says what becomes of a message."""

import asyncio
from collections.abc import Callable, Sequence

from murder.api import (
    Arriving,
    DeliveryAction,
    Discard,
    FileInto,
    Keep,
    Redirect,
    Reject,
    hookimpl,
)
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind

ANSWERS: dict[bytes, Sequence[object]] = {
    b"keep": [Keep(frozenset({"\\flagged", "$Label"}))],
    b"file": [FileInto("INBOX/Lists", frozenset({"\\Seen"}))],
    b"make": [FileInto("INBOX/Grüße/new", create=True)],
    b"both": [Keep(), FileInto("INBOX/Lists"), FileInto("INBOX/Lists", frozenset({"x"}))],
    b"alien": [FileInto("Other Users/bob/secret"), FileInto("nonsense\r\n*")],
    b"discard": [Discard()],
    b"reject": [Reject("No.\nNot from you\x00.")],
    b"redirect": [Redirect(b"far@example.org")],
    b"nothing": [],
    b"wrong": ["keep"],
    b"flags": [Keep(frozenset({"a b)"}))],
    b"contradiction": [Reject("no"), Keep()],
}
RAISES: dict[bytes, Callable[[], BaseException]] = {
    b"crash": lambda: ZeroDivisionError("in the filter"),
    b"away": lambda: UpstreamFailure(UpstreamKind.CONNECT, "scripts.test", "refused"),
    b"refuse": lambda: Refusal(Code.OVER_QUOTA, "Enough of you"),
}


class BySubject:
    """See the module."""

    async def decide(self, message: Arriving) -> Sequence[DeliveryAction] | None:
        _, _, rest = bytes(message.octets).partition(b"Subject: ")
        word = rest.partition(b"\r\n")[0]
        if word == b"who":
            assert (message.sender, message.recipient, message.user) == (b"s@x", b"ana", "ana")
            assert message.mailbox == b"user.ana"
            return [Keep(frozenset({"known"}))]
        if word == b"slow":
            await asyncio.Event().wait()  # for ever
        if word in RAISES:
            raise RAISES[word]()
        return ANSWERS.get(word)  # type: ignore[return-value] # some are wrong on purpose


@hookimpl
def make_delivery_filter() -> BySubject:
    """The hook."""
    return BySubject()
