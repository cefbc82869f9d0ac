"""What an upstream can begin anew elsewhere: the commands that nobody has answered, within bounds."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from murder.net.outgoing.exchange import Client
from murder.net.outgoing.relay import KEPT_OCTETS, ImapUpstream


class Silent(Client):
    """Takes whatever comes."""

    def __init__(self) -> None:
        self.connection = cast(
            Any,
            SimpleNamespace(
                is_plain=False, is_tls=False, write=lambda _: None, writing_paused=False
            ),
        )


def made() -> ImapUpstream:
    upstream = ImapUpstream(cast(Any, SimpleNamespace(server="be.test")), Silent(), 60, 1000)
    upstream.connection = cast(
        Any, SimpleNamespace(is_plain=False, write=lambda _: None, acknowledge_now=lambda: None)
    )
    return upstream


async def test_the_last_ones_as_they_were_sent() -> None:
    upstream = made()
    upstream.relay_all(
        [(b"a1", b"a1 NOOP\r\n"), (b"a2", b"a2 CHECK\r\n"), (b"a3", b"a3 FETCH 1 UID\r\n")],
        b"a1 NOOP\r\na2 CHECK\r\na3 FETCH 1 UID\r\n",
    )
    upstream.relay(b"a4", b"a4 SEARCH BODY {1+}\r\nx\r\n")
    upstream.received(b"a1 OK done\r\n* 1 EXISTS\r\na2 OK done\r\n")
    upstream.lost(None)
    assert upstream.unanswered([b"a3", b"a4"]) == [
        (b"a3", b"a3 FETCH 1 UID\r\n"),
        (b"a4", b"a4 SEARCH BODY {1+}\r\nx\r\n"),
    ]
    assert upstream.unanswered([]) == []


@pytest.mark.parametrize("answered", [0, 1, 2])
async def test_none_where_one_was_too_long_to_be_kept(answered: int) -> None:
    upstream = made()
    tags = [b"a1", b"a2", b"a3"]
    upstream.relay(b"a1", b"a1 NOOP\r\n")
    upstream.relay(b"a2", b"a2 UID FETCH " + b"1," * KEPT_OCTETS + b"1 UID\r\n")
    upstream.relay(b"a3", b"a3 NOOP\r\n")
    upstream.received(b"".join(tag + b" OK done\r\n" for tag in tags[:answered]))
    upstream.lost(None)
    left = [(b"a3", b"a3 NOOP\r\n")] if answered == 2 else None
    assert upstream.unanswered(tags[answered:]) == left


async def test_a_client_that_never_waits_for_all_makes_nothing_grow() -> None:
    upstream = made()
    upstream.relay(b"n0", b"n0 NOOP\r\n")
    for number in range(1, 2000):
        upstream.relay(b"n%d" % number, b"n%d NOOP\r\n" % number)
        upstream.received(b"n%d OK done\r\n" % (number - 1))
        assert len(upstream.flight) == 1
    upstream.lost(None)
    assert upstream.unanswered([b"n1999"]) == [(b"n1999", b"n1999 NOOP\r\n")]
