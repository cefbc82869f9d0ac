"""What only a frontend does: mail between backends, mailboxes at the right one, a list of all of them."""

import imaplib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kit.demo import Demo, message

DATE = '"01-Jan-2020 10:00:00 +0100"'


@contextmanager
def shared_elsewhere(demo: Demo, number: int, rights: str) -> Iterator[tuple[imaplib.IMAP4, str]]:
    """The user's session at the frontend, and a mailbox of somebody on another backend in which they have these rights."""
    other = next(n for n in range(number + 1, 60) if demo.home(n) != demo.home(number))
    name = f"for{number}"
    with demo.imap(demo.frontend, demo.user(other)) as sharer:
        assert sharer.create(f"INBOX/{name}")[0] == "OK"
        assert sharer.setacl(f"INBOX/{name}", demo.user(number), rights)[0] == "OK"
    with demo.imap(demo.frontend, demo.user(number)) as client:
        yield client, f"user/{demo.user(other)}/{name}"


def uids_of(client: imaplib.IMAP4, mailbox: str) -> list[str]:
    assert client.select(mailbox)[0] == "OK"
    return [str(uid) for uid in client.uid("SEARCH", "ALL")[1][0].decode().split()]


def bodies_of(client: imaplib.IMAP4) -> list[bytes]:
    found = client.fetch("1:*", "(BODY.PEEK[])")[1]
    return [part[1] for part in found if isinstance(part, tuple)]


def test_many_and_large_messages_are_copied_with_a_right_copyuid(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrswipte") as (client, shared):
        for position in range(120):
            letter = message(f"no {position}", "x" * (3_000_000 if position == 60 else position))
            flags = r"(\Flagged $Junk)" if position % 2 else ""
            assert client.append("INBOX", flags, DATE, letter)[0] == "OK"
        client.select("INBOX")
        wanted = bodies_of(client)
        typ, answer = client.uid("COPY", "1:100000", shared)
        assert typ == "OK", answer
        told = client.response("COPYUID")[1][0]
        assert told is not None and re.fullmatch(rb"[0-9]+ 1:120 1:120", told), told
        assert client.select(shared)[1] == [b"120"]
        assert bodies_of(client) == wanted
        assert len(client.search(None, "FLAGGED", "KEYWORD", "$Junk")[1][0].split()) == 60
        assert b"10:00:00 +0100" in client.fetch("61", "(INTERNALDATE)")[1][0]  # type: ignore[operator]


def test_a_move_takes_away_what_it_copied_and_nothing_else(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrswipte") as (client, shared):
        for position in range(5):
            client.append(
                "INBOX", r"(\Deleted)" if position == 0 else "", "", message(f"{position}")
            )
        client.select("INBOX")
        typ, answer = client._simple_command("MOVE", "2,4:5", shared)
        assert typ == "OK", answer
        assert client.response("COPYUID")[1][0].split()[1:] == [b"2,4:5", b"1:3"]
        assert client.response("EXPUNGE")[1] == [b"2", b"3", b"3"]
        assert client.uid("SEARCH", "ALL")[1] == [b"1 3"]
        assert client.select(shared)[1] == [b"3"]
        assert client.uid("COPY", "77:99", "INBOX")[0] == "OK"  # names no message: no error


@pytest.mark.parametrize("command", ["COPY", "MOVE"])
def test_without_the_right_to_insert_nothing_happens(demo: Demo, number: int, command: str) -> None:
    with shared_elsewhere(demo, number, "lrs") as (client, shared):
        client.append("INBOX", "", "", message("mine"))
        client.select("INBOX")
        typ, answer = client.uid(command, "1:*", shared)
        assert (typ, answer[0][:8]) == ("NO", b"[NOPERM]")
        assert client.uid("SEARCH", "ALL")[1] == [b"1"]
        assert uids_of(client, shared) == []


def test_a_move_without_the_right_to_remove_copies_nothing(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrsi") as (client, shared):
        client.append(shared, "", "", message("theirs"))
        client.select(shared)
        typ, answer = client.uid("MOVE", "1:*", "INBOX")
        assert (typ, answer[0][:8]) == ("NO", b"[NOPERM]")
        assert uids_of(client, "INBOX") == []
        assert client.select(shared, readonly=True)[0] == "OK"
        typ, answer = client.uid("COPY", "1:*", "INBOX/none")
        assert (typ, answer[0][:11]) == ("NO", b"[TRYCREATE]")


def test_a_large_append_to_a_mailbox_that_is_not_there_leaves_the_session_whole(
    demo: Demo, number: int
) -> None:
    with demo.imap(demo.frontend, demo.user(number)) as client:
        octets = message("large", "x" * 2_000_000)
        typ, answer = client.append("INBOX/none", "", "", octets)
        assert (typ, answer[0][:11]) == ("NO", b"[TRYCREATE]")
        for synchronising in (b"", b"+"):
            client.send(b"L APPEND INBOX/none {%d%s}\r\n" % (len(octets), synchronising))
            if synchronising:
                client.send(octets + b"\r\n")
            assert client.readline()[:16] == b"L NO [TRYCREATE]"
        assert client.append("INBOX", "", "", octets)[0] == "OK"
        assert uids_of(client, "INBOX") == ["1"]


def test_half_a_large_message_is_never_stored(demo: Demo, number: int) -> None:
    with socket.create_connection((demo.frontend["host"], demo.frontend["imap"])) as sock:
        stream: Any = sock.makefile("rwb", 0)
        stream.readline()
        stream.write(f"a LOGIN {demo.user(number)} {demo.password}\r\n".encode())
        assert stream.readline().startswith(b"a OK")
        stream.write(b"b APPEND INBOX {100000+}\r\n" + b"x" * 99_995)
    with demo.imap(demo.frontend, demo.user(number)) as client:
        assert uids_of(client, "INBOX") == []


def test_an_administrator_places_mailboxes_and_each_is_known_at_once(
    demo: Demo, number: int
) -> None:
    names = [backend["name"] for backend in demo.backends]
    with demo.imap(demo.frontend, "admin") as admin:
        for position, server in enumerate(names):
            name = f"dept{number}-{position}"
            assert admin.create(name)[0] == "OK"
            assert admin._simple_command("CREATE", f"{name}/sub", server)[0] == "OK"
            assert admin.status(f"{name}/sub", "(MESSAGES)")[0] == "OK"
            assert admin.setacl(name, demo.user(number), "lrswipkxte")[0] == "OK"
        one = demo.imap(demo.backends[0], "admin").list('""', f"dept{number}*/sub")[1]
        assert one == [f'(\\HasNoChildren) "/" dept{number}-0/sub'.encode()]
        for old, new in (("0", "1/sub/x"), ("1/sub/x", "0")):  # below one of another backend
            assert admin.rename(f"dept{number}-{old}", f"dept{number}-{new}")[0] == "OK"
            assert admin.status(f"dept{number}-{new}/sub", "(MESSAGES)")[0] == "OK"
        for position in range(len(names)):
            shared = f"dept{number}-{position}/sub"
            assert admin.setacl(shared, demo.user(number), "lrkxte")[0] == "OK"
        with demo.imap(
            demo.frontend, demo.user(number)
        ) as user:  # who may only be told by the other
            typ, answer = user.rename(f"dept{number}-0/sub", f"dept{number}-1/sub/y")
            assert (typ, answer[0][:8]) == ("NO", b"[CANNOT]"), answer
        typ, answer = admin._simple_command("CREATE", f"dept{number}-9", "nowhere!default")
        assert (typ, answer[0][:8]) == ("NO", b"[CANNOT]"), answer
        for position in range(len(names)):
            assert admin.delete(f"dept{number}-{position}/sub")[0] == "OK"
            assert admin.delete(f"dept{number}-{position}")[0] == "OK"
        assert admin.list('""', f"dept{number}*")[1] == [None]


def test_a_user_who_is_deleted_is_gone_from_all_backends(demo: Demo, number: int) -> None:
    home = demo.home(number)["name"]
    other = next(one["name"] for one in demo.backends if one["name"] != home)
    inbox = f"user/{demo.user(number)}"
    with demo.imap(demo.frontend, "admin") as admin:
        assert admin.create(f"{inbox}/here")[0] == "OK"
        assert admin._simple_command("CREATE", f"{inbox}/there", f"{other}!default")[0] == "OK"
        assert admin.delete(inbox)[0] == "OK"
        assert admin.list('""', f"{inbox}/*")[1] == [None]
        assert admin.list('""', inbox)[1] == [None]
        assert admin._simple_command("CREATE", inbox, home)[0] == "OK"


def test_a_selected_mailbox_may_be_renamed(demo: Demo, number: int, kind: str) -> None:
    with demo.imap(demo.server(kind, number), demo.user(number)) as client:
        assert client.create("INBOX/a")[0] == client.create("INBOX/a/b")[0] == "OK"
        assert client.select("INBOX/a/b")[0] == "OK"
        assert client.rename("INBOX/a", "INBOX/z") == ("OK", [b"Completed"])
        assert client.append("INBOX/z/b", "", "", message("one"))[0] == "OK"
        assert client.noop()[0] == "OK"
        assert client.search(None, "ALL")[1] == [b"1"]
        assert client.copy("1", "INBOX/z")[0] == "OK"


def test_a_deleted_mailbox_is_selected_no_longer(demo: Demo, number: int) -> None:
    with demo.imap(demo.frontend, demo.user(number)) as client:
        assert client.create("INBOX/a")[0] == "OK"
        assert client.create("INBOX/a/b")[0] == "OK"
        assert client.select("INBOX/a/b")[0] == "OK"
        assert client.delete("INBOX/a/b")[0] == "OK"
        with pytest.raises(imaplib.IMAP4.error, match="selected"):
            client.fetch("1", "(FLAGS)")


def told(client: imaplib.IMAP4, *words: str) -> list[str]:
    """All untagged LIST, LSUB, STATUS and MYRIGHTS lines that a command brings, in their order by kind."""
    typ, answer = client._simple_command(*words)
    assert typ == "OK", answer
    return [
        f"{kind} {line.decode()}"
        for kind in ("LIST", "LSUB", "STATUS", "MYRIGHTS")
        for line in client.untagged_responses.pop(kind, [])
        if isinstance(line, bytes)
    ]


def test_subscriptions_are_with_the_inbox_and_reach_all_backends(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrs") as (client, shared):
        assert client.create("INBOX/a")[0] == client.create("INBOX/gone")[0] == "OK"
        for name in ("INBOX/a", "INBOX/gone", shared):
            assert client.subscribe(name)[0] == "OK"
        assert client.select("INBOX/a")[0] == "OK"
        assert client.delete("INBOX/gone")[0] == "OK"
        # RFC 3501 §6.3.6: the server does not unsubscribe
        gone = r'LSUB (\Noselect) "/" INBOX/gone'
        wanted = ['LSUB () "/" INBOX/a', gone, f'LSUB () "/" {shared}']
        assert told(client, "LSUB", '""', "*") == wanted
        assert told(client, "LSUB", '""', "INBOX/%") == wanted[:2]
        listed = told(client, "LIST", "(SUBSCRIBED)", '""', '("INBOX/*" "user/*")')
        assert listed == [
            'LIST (\\HasNoChildren \\Subscribed) "/" INBOX/a',
            'LIST (\\NonExistent \\HasNoChildren \\Subscribed) "/" INBOX/gone',
            f'LIST (\\HasNoChildren \\Subscribed) "/" {shared}',
        ]
        assert client.unsubscribe("INBOX/gone")[0] == client.unsubscribe(shared)[0] == "OK"
        assert told(client, "LSUB", '""', "*") == wanted[:1]
        assert told(client, "LSUB", '""', "%") == ['LSUB (\\Noselect) "/" INBOX']


def test_a_list_with_status_asks_every_backend(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrsi") as (client, shared):
        client.append(shared, "", "", message("one"))
        names, returns = f"(INBOX {shared})", "(STATUS (MESSAGES) MYRIGHTS)"
        listed = told(client, "LIST", '""', names, "RETURN", returns)
        assert [line.rsplit(" ", 1)[1] for line in listed[:2]] == ["INBOX", shared]
        assert sorted(listed[2:]) == [
            "MYRIGHTS INBOX lrswipkxtecdan",
            f"MYRIGHTS {shared} lrsi",
            "STATUS INBOX (MESSAGES 0)",
            f"STATUS {shared} (MESSAGES 1)",
        ]


def test_frontend_and_backend_list_the_same(demo: Demo, number: int) -> None:
    home = demo.home(number)
    patterns = ["*", "%", "INBOX", "INBOX/%", "inbox/*", "INBOX/a/%", "user/%", "none/*", ""]
    with (
        demo.imap(demo.frontend, demo.user(number)) as front,
        demo.imap(home, demo.user(number)) as back,
    ):
        for name in ("INBOX/a/b/c", "INBOX/a", "INBOX/&AOQ-"):
            assert front.create(name)[0] == "OK"
        for pattern in patterns:
            words = ("LIST", '""', f'"{pattern}"')
            assert told(front, *words) == told(back, *words)
        assert front._simple_command("CREATE", "INBOX/Sent", "(USE (\\Sent))")[0] == "OK"
        for more in (
            ('""', "*", "RETURN", "(SPECIAL-USE CHILDREN SUBSCRIBED)"),
            ("(SPECIAL-USE)", '""', "*"),
            ("(RECURSIVEMATCH SUBSCRIBED)", '""', "%"),
        ):
            assert told(front, "LIST", *more) == told(back, "LIST", *more)


def test_what_fails_half_way_is_taken_back(demo: Demo, number: int) -> None:
    """More messages than one MULTIAPPEND of ours takes, into a quota that the second one exceeds."""
    other = next(n for n in range(number + 1, 60) if demo.home(n) != demo.home(number))
    with shared_elsewhere(demo, number, "lrswipte") as (client, shared):
        client.append(shared, "", "", message("before"))
        with demo.imap(demo.home(other), "admin") as admin:
            root = shared.rpartition("/")[0]
            assert admin.setquota(root, "(MESSAGE 510)")[0] == "OK"
            octets = b"Subject: x\r\n\r\n"
            client.send(b"M APPEND INBOX" + 515 * (b" {%d+}\r\n" % len(octets) + octets) + b"\r\n")
            assert client.readline().startswith(b"M OK [APPENDUID ")
            client.select("INBOX")
            typ, answer = client.uid("MOVE", "1:515", shared)
            present = int(client.status(shared, "(MESSAGES)")[1][0].split()[-1].rstrip(b")"))
            assert admin.setquota(root, "()")[0] == "OK"
        assert (typ, answer[0][:11], present) == ("NO", b"[OVERQUOTA]", 1)
        assert client.search(None, "ALL")[1][0].split()[-1] == b"515"


def test_a_message_too_large_behind_another_leaves_nothing(demo: Demo, number: int) -> None:
    octets = message("first", "x" * 20_000)
    with demo.imap(demo.frontend, demo.user(number)) as client:
        client.send(b"M APPEND INBOX {%d+}\r\n" % len(octets) + octets + b" {999999999}\r\n")
        assert client.readline()[:13] == b"M NO [TOOBIG]"
        assert client.status("INBOX", "(MESSAGES)")[1] == [b"INBOX (MESSAGES 0)"]


def test_who_uses_rlist_is_referred(demo: Demo, number: int) -> None:
    home, user = demo.home(number), demo.user(number)
    with demo.imap(demo.frontend, user) as client:
        assert client.select("INBOX")[0] == "OK"
        assert client.xatom("RLIST", '""', "INBOX")[0] == "OK"
        url = f"imap://{user};AUTH=*@127.0.0.1:{home['imap']}/INBOX"
        typ, answer = client.select("INBOX")
        assert (typ, answer[0].split(b"]")[0]) == ("NO", b"[REFERRAL " + url.encode())  # type: ignore[union-attr]
        assert client.status("INBOX", "(MESSAGES)")[0] == "NO"


def test_quotas_and_annotations_are_at_the_backend_of_each_mailbox(demo: Demo, number: int) -> None:
    with shared_elsewhere(demo, number, "lrswi") as (client, shared):
        with demo.imap(demo.frontend, "admin") as admin:
            for root in (f"user/{demo.user(number)}", shared):
                assert admin.setquota(root, "(STORAGE 1000)")[0] == "OK"
        for mailbox in ("INBOX", shared):
            assert b"STORAGE 0 1000" in client.getquotaroot(mailbox)[1][1][0]
            assert client.xatom("SETMETADATA", mailbox, '(/private/comment "mine")')[0] == "OK"
            assert client.xatom("GETMETADATA", mailbox, "/private/comment")[0] == "OK"
            assert b"mine" in client.untagged_responses.pop("METADATA")[0]
        assert client.xatom("GETMETADATA", '""', "/shared/admin")[0] == "OK"
