"""What an upstream can begin anew elsewhere: the commands that nobody has answered, within bounds."""

from types import SimpleNamespace
from typing import Any, cast

from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import KEPT_OCTETS, MAX_IN_FLIGHT, MAX_KEPT, ImapUpstream


class Silent(Client):
    """Takes whatever comes."""

    def __init__(self) -> None:
        self.connection = cast(
            Any, SimpleNamespace(is_plain=False, write=lambda _: None, writing_paused=False)
        )


def made() -> ImapUpstream:
    upstream = ImapUpstream(cast(Any, SimpleNamespace(server="be.test")), Silent(), 60, 1000)
    upstream.connection = cast(
        Any, SimpleNamespace(is_plain=False, write=lambda _: None, acknowledge_now=lambda: None)
    )
    return upstream


async def test_the_last_ones_as_they_were_sent() -> None:
    upstream = made()
    upstream.relay_all([b"a1", b"a2", b"a3"], b"a1 NOOP\r\na2 CHECK\r\na3 FETCH 1 UID\r\n")
    upstream.relay(b"a4", b"a4 SEARCH BODY {1+}\r\nx\r\n")
    upstream.received(b"a1 OK done\r\n* 1 EXISTS\r\na2 OK done\r\n")
    assert upstream.unanswered([b"a3", b"a4"]) == [
        (b"a3", b"a3 FETCH 1 UID\r\n"),
        (b"a4", b"a4 SEARCH BODY {1+}\r\nx\r\n"),
    ]
    assert upstream.unanswered([]) == []


async def test_none_where_one_was_too_long_to_be_kept() -> None:
    upstream = made()
    upstream.relay(b"a1", b"a1 NOOP\r\n")
    upstream.relay(b"a2", b"a2 UID FETCH " + b"1," * KEPT_OCTETS + b"1 UID\r\n")
    upstream.relay(b"a3", b"a3 NOOP\r\n")
    assert upstream.unanswered([b"a1", b"a2", b"a3"]) is None
    upstream.received(b"a1 OK done\r\na2 OK done\r\n")
    assert upstream.unanswered([b"a3"]) == [(b"a3", b"a3 NOOP\r\n")]


async def test_a_client_that_never_waits_for_all_makes_nothing_grow() -> None:
    upstream = made()
    upstream.relay(b"n0", b"n0 NOOP\r\n")
    for number in range(1, 5 * MAX_KEPT):
        upstream.relay(b"n%d" % number, b"n%d NOOP\r\n" % number)
        upstream.received(b"n%d OK done\r\n" % (number - 1))
        assert len(upstream._sent) <= MAX_KEPT
    last = 5 * MAX_KEPT - 1
    assert upstream.unanswered([b"n%d" % last]) == [(b"n%d" % last, b"n%d NOOP\r\n" % last)]
    upstream.received(b"n%d OK done\r\n" % last)
    assert not upstream._sent
    assert MAX_IN_FLIGHT < MAX_KEPT
