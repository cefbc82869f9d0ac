"""A mailbox moves while clients have it selected: through a frontend they hear the next mail, and nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.moves.test_moves import pair, xfer
from tests.kit.demo import Demo, message, running_demo
from tests.kit.peer import BlockingPeer
from tests.kit.waiting import pause

USERS = 13


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--users", str(USERS), "--no-tls-required") as running:
        yield running


def client(demo: Demo, user: int, server: dict[str, Any] | None = None) -> BlockingPeer:
    return demo.peer(server or demo.frontend, user=demo.user(user))


def fill(demo: Demo, user: int, count: int) -> None:
    wire = client(demo, user)
    for number in range(count):
        octets = message(f"m{number}").decode()
        wire.send(f"a{number} APPEND INBOX {{{len(octets)}+}}\r\n{octets}\r\n")
        wire.until(f"a{number} ")
    wire.close()


def move(demo: Demo, user: int) -> None:
    assert xfer(demo, user, *pair(demo, user))[0] == "OK"


def deliver(demo: Demo, user: int) -> None:
    assert demo.deliver(demo.frontend, demo.user(user), message("new")).startswith("250")


def test_the_next_mail_is_seen_in_idle(demo: Demo) -> None:
    fill(demo, 1, 2)
    wire = client(demo, 1)
    wire.ok("SELECT INBOX")
    wire.send("i1 IDLE\r\n")
    assert wire.line().startswith("+ ")
    for exists in (3, 4):  # there and back again
        move(demo, 1)
        deliver(demo, 1)
        assert wire.line() == f"* {exists} EXISTS"
        assert re.fullmatch(r"\* \d+ RECENT", wire.line())
    move(demo, 1)
    other = client(demo, 1)
    other.ok("SELECT INBOX")
    other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    assert re.fullmatch(r"\* 2 FETCH \(FLAGS \(.*\\Flagged.*\)\)", wire.line())
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert "\\Deleted" in wire.line()
    other.ok("EXPUNGE")
    assert wire.line() == "* 1 EXPUNGE"
    assert wire.line() == "* 0 RECENT"  # once behind a move: it may have been more
    wire.send("DONE\r\n")
    assert wire.until("i1 ") == ["i1 OK Completed"]
    assert wire.ok("FETCH 1 (UID)") == ["* 1 FETCH (UID 2)"]
    wire.close()
    other.close()


def test_the_next_mail_is_seen_by_who_asks(demo: Demo) -> None:
    fill(demo, 2, 2)
    wire = client(demo, 2)
    wire.ok("SELECT INBOX")
    for exists in (3, 4):
        move(demo, 2)
        deliver(demo, 2)
        lines = wire.ok("NOOP")
        assert lines[0] == f"* {exists} EXISTS" and len(lines) == 2, lines
    move(demo, 2)
    assert wire.ok("NOOP") == []
    assert wire.ok("FETCH 1:2 (UID)") == ["* 1 FETCH (UID 1)", "* 2 FETCH (UID 2)"]
    wire.close()


def test_what_was_recent_to_a_session_is_so_to_none_behind_a_move(demo: Demo) -> None:
    """RFC 3501 §2.3.2. The backend that it comes back to has kept all of it: nothing else has changed meanwhile."""
    fill(demo, 13, 2)
    move(demo, 13)
    assert "* 2 RECENT" in client(demo, 13).ok("SELECT INBOX")
    for _ in range(2):
        move(demo, 13)
        assert "* 0 RECENT" in client(demo, 13).ok("SELECT INBOX")


def test_numbers_stay_right_and_removals_are_told_when_they_may_be(demo: Demo) -> None:
    fill(demo, 3, 4)
    wire, resync = client(demo, 3), client(demo, 3)
    resync.ok("ENABLE QRESYNC")
    for one in (wire, resync):
        one.ok("SELECT INBOX")
    move(demo, 3)
    other = client(demo, 3)
    other.ok("SELECT INBOX")
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    assert wire.ok("FETCH 3 (UID)") == ["* 3 FETCH (UID 3)"]
    said = wire.ok("UID STORE 4 +FLAGS.SILENT (\\Answered)")
    assert said[-2:] == ["* 1 EXPUNGE", "* 0 RECENT"]
    assert wire.ok("FETCH 3 (UID)") == ["* 3 FETCH (UID 4)"]
    told = resync.ok("NOOP")
    assert told[:2] == ["* VANISHED 1", "* 0 RECENT"], told
    assert "UID 4" in told[2] and "MODSEQ" in told[2], told
    for one in (wire, resync, other):
        one.close()


def test_what_is_on_its_way_is_done_once_at_the_new_place(demo: Demo) -> None:
    fill(demo, 4, 3)
    wire = client(demo, 4)
    wire.ok("CREATE INBOX/Sub")
    wire.ok("SELECT INBOX")
    move(demo, 4)
    lines = [
        "p1 STORE 1 +FLAGS (\\Deleted)",
        "p2 FETCH 2 (UID)",
        "p3 UID SEARCH DELETED",
        "p4 COPY 2:3 INBOX/Sub",
        "p5 NOOP",
        "p6 STATUS INBOX/Sub (MESSAGES)",
        "p7 CLOSE",
        "p8 SELECT INBOX",
    ]
    wire.send("".join(line + "\r\n" for line in lines))
    said = {tag: wire.until(tag + " ") for tag in ("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8")}
    assert all(lines[-1].split()[1] == "OK" for lines in said.values()), said
    assert said["p1"][0].startswith("* 1 FETCH (FLAGS")
    assert said["p2"][0] == "* 2 FETCH (UID 2)"
    assert said["p3"][0] == "* SEARCH 1"
    assert said["p4"][-1].startswith("p4 OK [COPYUID")
    assert "(MESSAGES 2)" in said["p6"][0]
    assert "* 2 EXISTS" in said["p8"]
    assert not [line for lines in said.values() for line in lines if "CLOSED" in line]
    # CLOSE alone, and examined
    wire.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    move(demo, 4)
    wire.ok("CLOSE")
    assert "* 1 EXISTS" in wire.ok("EXAMINE INBOX")
    move(demo, 4)
    assert wire.command("STORE 1 +FLAGS (\\Deleted)")[-1].startswith("t NO [READ-ONLY]")
    wire.close()


def test_a_done_that_crosses_the_move(demo: Demo) -> None:
    fill(demo, 5, 1)
    wire = client(demo, 5)
    wire.ok("SELECT INBOX")
    for number in range(4):
        wire.send(f"i{number} IDLE\r\n")
        assert wire.line().startswith("+ ")
        with demo.imap(pair(demo, 5)[0], "admin") as admin:
            _, target = pair(demo, 5)
            tag = admin._new_tag()
            admin.send(tag + f" XFER user/{demo.user(5)} {target['name']}\r\n".encode())
            pause(0.03 * number, "whenever DONE comes during the move, it is answered")
            wire.send(f"DONE\r\nn{number} NOOP\r\n")
            assert wire.until(f"i{number} ")[-1].split()[1] == "OK"
            assert wire.until(f"n{number} ")[-1].split()[1] == "OK"
            while not admin.readline().startswith(tag):
                pass
    wire.close()


def test_who_is_at_the_backend_itself_is_told_so(demo: Demo) -> None:
    source, _ = pair(demo, 6)
    wire = client(demo, 6, source)
    wire.ok("SELECT INBOX")
    wire.send("i1 IDLE\r\n")
    assert wire.line().startswith("+ ")
    move(demo, 6)
    said = wire.line()
    assert said.startswith("* BYE") and "moved" in said and "deleted" not in said
    wire.close()


def test_a_search_result_goes_along(demo: Demo) -> None:
    fill(demo, 7, 3)
    wire = client(demo, 7)
    wire.ok("SELECT INBOX")
    wire.ok("SEARCH RETURN (SAVE) 2:3")
    for _ in range(2):
        move(demo, 7)
        assert wire.ok("FETCH $ (UID)") == ["* 2 FETCH (UID 2)", "* 3 FETCH (UID 3)"]
    assert wire.ok("UID SEARCH RETURN (COUNT) $") == ['* ESEARCH (TAG "t") UID COUNT 2']
    wire.close()


def test_a_search_that_is_kept_up_to_date_ends_and_the_mailbox_stays(demo: Demo) -> None:
    """RFC 5267 §4.3.1."""
    fill(demo, 10, 2)
    wire = client(demo, 10)
    wire.ok("SELECT INBOX")
    assert "u1 OK" in wire.ask("u1 UID SEARCH RETURN (UPDATE ALL) ALL")[-1]
    move(demo, 10)
    deliver(demo, 10)
    lines = wire.ok("NOOP")
    assert lines[0].startswith('* NO [NOUPDATE "u1"] ') and lines[1] == "* 3 EXISTS"
    assert len(lines) == 3, lines
    assert "u1 OK" in wire.ask("u1 UID SEARCH RETURN (UPDATE ALL) ALL")[-1]
    wire.close()


def test_notify_goes_on(demo: Demo) -> None:
    fill(demo, 11, 2)
    wire = client(demo, 11)
    wire.ok("CREATE INBOX/Sub")
    wire.ok("SELECT INBOX")
    events = "MessageNew MessageExpunge"
    wire.ok(f"NOTIFY SET (selected ({events})) (personal ({events} MailboxName))")
    for exists in (3, 4):
        move(demo, 11)
        assert wire.line().startswith(f"* STATUS INBOX/Sub (MESSAGES {exists - 3} ")
        other = client(demo, 11)
        other.ok("APPEND INBOX/Sub {4+}\r\nmail")
        assert wire.line().startswith(f"* STATUS INBOX/Sub (MESSAGES {exists - 2} ")
        other.close()
        deliver(demo, 11)
        assert wire.line() == f"* {exists} EXISTS"
        assert wire.line().endswith(" RECENT")
    assert wire.ok("FETCH 2 (UID)") == ["* 2 FETCH (UID 2)"]
    other = client(demo, 11)
    other.ok("CREATE INBOX/More")
    assert "INBOX/More" in wire.line()
    wire.close()
    other.close()


WATCHED = "(MessageNew MessageExpunge)"


@pytest.mark.parametrize(
    ("which", "idles"), [("personal", True), ("subtree INBOX", False), ("subscribed", True)]
)
def test_a_watched_mailbox_may_leave_alone(demo: Demo, which: str, idles: bool) -> None:
    """To a backend that the session has not been at, and back to one that it has; the selected one stays."""
    wire, other = client(demo, 12), client(demo, 12)
    wire.ok("CREATE INBOX/Far")
    wire.ok("SUBSCRIBE INBOX/Far")
    wire.ok("SELECT INBOX")
    wire.ok(f"NOTIFY SET (selected {WATCHED}) ({which} {WATCHED})")
    if idles:
        wire.send("i1 IDLE\r\n")
        assert wire.line().startswith("+ ")
    source, target = pair(demo, 12)
    name, told = f"user/{demo.user(12)}/Far", 0
    for here, there in ((source, target), (target, source)):
        with demo.imap(here, "admin") as admin:
            assert admin._simple_command("XFER", name, there["name"])[0] == "OK"
        assert wire.line().startswith(f"* STATUS INBOX/Far (MESSAGES {told} ")
        told += 1
        other.ok("APPEND INBOX/Far {4+}\r\nmail")
        assert wire.line().startswith(f"* STATUS INBOX/Far (MESSAGES {told} ")
    other.ok("APPEND INBOX {4+}\r\nmail")
    assert wire.line().endswith(" EXISTS") and wire.line().endswith(" RECENT")
    if idles:
        wire.send("DONE\r\n")
        assert wire.until("i1 ") == ["i1 OK Completed"]
    assert wire.ok("NOOP") == []
    wire.ok("DELETE INBOX/Far")
    wire.close()
    other.close()


@pytest.mark.parametrize("events", ["MailboxName", "MessageNew MessageExpunge MailboxName"])
def test_with_nothing_selected_a_move_changes_no_name(demo: Demo, events: str) -> None:
    """Of one mailbox, and then of all: names are told as if nobody had moved, and mail where it is watched, too."""
    wire, other = client(demo, 10), client(demo, 10)
    wire.ok("CREATE INBOX/Far")
    wire.ok(f"NOTIFY SET (personal ({events}))")
    source, target = pair(demo, 10)

    def states(*names: str) -> None:
        if "MessageNew" in events:
            told = [wire.line() for _ in names]
            assert sorted(line.split()[2] for line in told) == sorted(names), told
        # it waits until the new backend is watched: then names may change
        assert wire.ok("NOOP") == []

    with demo.imap(source, "admin") as admin:
        name = f"user/{demo.user(10)}/Far"
        assert admin._simple_command("XFER", name, target["name"])[0] == "OK"
    states("INBOX/Far")
    other.ok("RENAME INBOX/Far INBOX/Farther")
    assert wire.line().endswith('INBOX/Farther ("OLDNAME" ("INBOX/Far"))')
    other.ok("APPEND INBOX/Farther {4+}\r\nmail")
    states("INBOX/Farther")
    with demo.imap(target, "admin") as admin:
        assert admin._simple_command("XFER", f"{name}ther", source["name"])[0] == "OK"
    states("INBOX/Farther")
    move(demo, 10)
    states("INBOX", "INBOX/Farther")
    other.ok("DELETE INBOX/Farther")
    assert wire.line() == '* LIST (\\NonExistent) "/" INBOX/Farther'
    assert wire.line() == '* LIST (\\HasNoChildren) "/" INBOX'
    assert wire.ok("NOOP") == []
    wire.close()
    other.close()


def test_who_watches_at_the_backend_itself_is_told_to_ask_again(demo: Demo) -> None:
    """RFC 5465 §5.8: there is nobody who could go on elsewhere. At the other one it is news."""
    source, target = pair(demo, 12)
    wire, there = client(demo, 12, source), client(demo, 12, target)
    wire.ok("CREATE INBOX/Far")
    for one in (wire, there):
        one.ok("NOTIFY SET (subtree INBOX (MessageNew MessageExpunge MailboxName))")
    with demo.imap(source, "admin") as admin:
        name = f"user/{demo.user(12)}/Far"
        assert admin._simple_command("XFER", name, target["name"])[0] == "OK"
    assert wire.line().startswith("* OK [NOTIFICATIONOVERFLOW] A mailbox has moved")
    assert wire.ok("NOOP") == []
    assert there.line().startswith('* LIST (\\HasNoChildren) "/" INBOX/Far')
    assert there.line().startswith("* STATUS INBOX/Far (MESSAGES 0 ")
    wire.close()
    there.close()


def test_the_words_between_nodes_are_not_for_clients(demo: Demo) -> None:
    wire = client(demo, 8)
    wire.ok('ID ("x-follows-moves" "1")')
    assert wire.command("SELECT INBOX (X-VIEW (1 1 0 0 0))")[-1].startswith("t BAD")
    wire.ok("SELECT INBOX")
    move(demo, 8)
    assert wire.ok("NOOP") == []
    wire.close()


def test_imaplib_and_a_client_that_leaves_meanwhile(demo: Demo) -> None:
    fill(demo, 9, 2)
    with demo.imap(demo.frontend, demo.user(9)) as one:
        one.select("INBOX")
        gone = client(demo, 9)
        gone.ok("SELECT INBOX")
        gone.send("i1 IDLE\r\n")
        assert gone.line().startswith("+ ")
        gone.close()
        for exists in (3, 4):
            move(demo, 9)
            deliver(demo, 9)
            assert one.noop()[0] == "OK"
            assert one.response("EXISTS")[1][-1] == str(exists).encode()
            assert one.fetch(str(exists), "(UID)")[1] == [f"{exists} (UID {exists})".encode()]
        assert one.response("BYE")[1] == [None]


def test_nothing_of_it_is_a_warning(demo: Demo) -> None:
    log = (demo.folder / "fe1" / "log").read_text()
    assert "mailbox.followed" in log
    assert not [line for line in log.splitlines() if "upstream.lost" in line or "[error" in line]
