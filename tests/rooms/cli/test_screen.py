"""What a terminal shows: tables that fit, colour where it is wanted, nothing that steers the terminal."""

import os
import pty
import subprocess
import sys

import pytest

from murder.admin.cli.ctl.mailboxes.user import sum_of
from murder.admin.cli.screen import (
    Painted,
    Table,
    count,
    cut,
    first_labels,
    octets,
    plain,
    seconds,
    width_of,
)
from tests.kit.process import ROOT

ROWS = [
    ["user/anna", "be1.example.org", "5", "x"],
    ["user/" + "b" * 80, "be2.example.org", "12345", "y"],
]


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_a_table_fits(width: int) -> None:
    table = Table(
        ("mailbox", "server", "mails", "more"),
        ROWS,
        right=("mails",),
        hosts=("server",),
        spare=("more",),
    )
    lines = table.lines(width)
    assert max(map(width_of, lines)) <= width
    assert lines[0].startswith("mailbox")
    assert lines[1].rstrip().endswith("5") or width == 140


def test_a_table_gives_up_the_domain_first_then_spare_columns_then_names() -> None:
    def table() -> Table:
        return Table(
            ("mailbox", "server", "mails", "more"),
            ROWS,
            right=("mails",),
            hosts=("server",),
            spare=("more",),
        )

    assert "be1.example.org" in table().lines(140)[1]
    assert table().lines(110)[1].split() == ["user/anna", "be1", "5", "x"]
    assert table().lines(100)[1].split() == ["user/anna", "be1", "5"]
    assert table().lines(60)[2].split()[0].endswith("…")


def test_in_a_pipe_all_is_there() -> None:
    lines = Table(("mailbox", "server", "mails", "more"), ROWS).bare()
    assert len(lines) == 2 and lines[1].split() == ROWS[1]


def test_hosts_keep_what_tells_them_apart() -> None:
    assert first_labels({"be1.a.org", "be2.a.org"}) == {"be1.a.org": "be1", "be2.a.org": "be2"}
    assert first_labels({"be.a.org", "be.b.org"})["be.a.org"] == "be.a.org"
    assert first_labels({"192.0.2.1", "be.b.org"})["192.0.2.1"] == "192.0.2.1"


def test_nothing_from_the_wire_steers_the_terminal() -> None:
    assert plain("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    (line,) = Table(("name",), [[Painted("x\x1b]0;y\x07", "31")]]).bare()
    assert "\x1b" not in line


def test_widths_are_those_of_a_terminal() -> None:
    assert width_of("日本") == 4 and width_of("e\u0301") == 1
    assert cut("日本語テキスト", 7) == "日本語…"
    assert width_of(cut("日本語テキスト", 7)) <= 7


def test_figures_for_people() -> None:
    assert [count(1, "mailbox", "mailboxes"), count(2, "move")] == ["1 mailbox", "2 moves"]
    assert [octets(5), octets(1536), octets(3 << 30)] == ["5 B", "1.5 KiB", "3.0 GiB"]
    assert [seconds(0.0123), seconds(75), seconds(3 * 86400 + 7200)] == [
        "12 ms",
        "1 min 15 s",
        "3 d 02 h",
    ]


def on_a_terminal(code: str, **more: str) -> str:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=theirs,
        check=True,
        env={**environment, "TERM": "xterm", **more},
    )
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    return said


def test_colour_is_for_terminals_that_want_it() -> None:
    code = "from murder.admin.cli.screen import BAD, paint; print(paint('x', BAD))"
    assert "\x1b[1;31mx" in on_a_terminal(code)
    assert "\x1b" not in on_a_terminal(code, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(code, TERM="dumb")
    piped = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert piped.stdout == "x\n"


def test_what_somebody_may_not_see_is_not_counted_as_nothing() -> None:
    seen = {"name": "user/anna", "messages": 2, "octets": 3000}
    hidden = {"name": "user/anna/Sent", "messages": None, "octets": None}
    assert sum_of([seen, seen]) == "2 mailboxes, 4 messages, 5.9 KiB"
    assert sum_of([seen, hidden]).startswith("2 mailboxes; what is in 1 of them")
