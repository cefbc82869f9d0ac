"""Requests by HTTP that come at once, and heads of thousands of lines: what one costs the others is bounded."""

from typing import cast

import pytest

from murder.net.connection import Connection
from murder.node.pages import http
from murder.node.pages.http import MAX_AHEAD, MAX_LINES, HttpConnection, Request, Response
from tests.kit.steps import Calls, lines_run
from tests.kit.waiting import until_soon

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Visitor:
    """A connection, as far as pages use it."""

    cid = peer = "v"
    is_lost = False

    def __init__(self) -> None:
        self.said = b""
        self.is_over = False

    def read_at_most(self, octets: int) -> None: ...
    def became_known(self) -> None: ...
    def resume_reading(self) -> None: ...

    def write(self, octets: bytes) -> None:
        self.said += octets

    async def drain(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        self.is_over = True

    abort = close


async def answered(request: Request) -> Response:
    return Response(200, b"here")


def visited() -> tuple[Visitor, HttpConnection]:
    visitor = Visitor()
    page = HttpConnection(cast(Connection, visitor), answered, is_welcome=lambda: True)
    page.begin()
    return visitor, page


@pytest.mark.parametrize("count", [20, 40])
async def test_of_many_requests_that_come_at_once_one_is_looked_at_in_each_turn(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "is_late", lambda loop: True)
    there = [visited() for _ in range(count)]
    async with Calls("_look") as looks:
        for _, page in there:
            page.received(ASKED[:9])
            page.received(ASKED[9:])
        await until_soon(lambda: all(visitor.said for visitor, _ in there))
    assert looks.longest == 1
    assert all(visitor.said.endswith(b"here") for visitor, _ in there)
    for _, page in there:
        page.lost(None)


async def test_who_sends_on_while_others_have_their_turns_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "is_late", lambda loop: True)
    visitor, page = visited()
    for _ in range(2):
        page.received(b"x" * (MAX_AHEAD // 2 + 1))
    assert visitor.is_over
    page.lost(None)


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_head_of_thousands_of_lines_is_not_read(is_cut: bool) -> None:
    """A head of 16 KiB may have 2,700 lines: to read them took as long as 500 requests."""
    head = ASKED[:-2] + b"A: b\r\n" * 2000
    visitor, page = visited()
    pieces = [head[at : at + 999] for at in range(0, len(head), 999)] if is_cut else [head]
    run = sum(lines_run(page.received, piece) for piece in pieces)
    assert visitor.said.startswith(b"HTTP/1.1 431 ") and visitor.is_over
    assert run < 2000
    page.lost(None)


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
@pytest.mark.parametrize("cut", range(4))
async def test_lines_of_a_body_do_not_count_wherever_its_head_is_cut(
    end: bytes, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others have their turns nobody has looked at the head. h11 takes bare line ends, too."""
    monkeypatch.setattr(http, "is_late", lambda loop: True)
    asked = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000" + end + b"\n" * 1000
    at = len(asked) - 1000 - cut
    visitor, page = visited()
    page.received(asked[:at])
    page.received(asked[at:])
    await until_soon(lambda: visitor.said)
    assert visitor.said.endswith(b"here")
    page.lost(None)


async def test_lines_count_for_each_request_anew_and_those_of_bodies_do_not() -> None:
    visitor, page = visited()
    fields = b"A: b\r\n" * (MAX_LINES - 10)
    post = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + fields + b"\r\n" + b"\n" * 1000
    )
    page.received(post + ASKED[:-2] + fields + b"\r\n")
    await until_soon(lambda: visitor.said.count(b"here") == 2)
    page.received(post)
    await until_soon(lambda: visitor.said.count(b"here") == 3)
    assert not visitor.is_over
    page.lost(None)
