"""Our frontend in front of real Cyrus backends with a real Cyrus master, unpatched; and of one Cyrus backend beside one
of ours. Every protocol, and mail between the two."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.roundcube import make_a_filter
from tests.clients.sieve_programs import PROGRAMS, Where
from tests.cyrus.conftest import Lab
from tests.cyrus.our_roles import (
    FRONTEND,
    Imap,
    deliver,
    logged_in,
    message,
    ok,
    our_backend,
    our_frontend,
    popped,
    subjects,
)
from tests.kit.managesieve import ManageSieve


@pytest.fixture(params=["two Cyrus backends", "one of ours"])
def frontend(request: pytest.FixtureRequest, cyrus_parts: Lab, tmp_path: Path) -> Iterator[str]:
    """user1 lives on be1, a Cyrus; user2 on be2, a Cyrus or ours."""
    lab = cyrus_parts
    with ExitStack() as stack:
        lab.run("gen", LAB_EXTRA="imapidlepoll: 1")  # it has no other way to notice
        lab.run("start", "mupdate", "be1")
        if request.param == "one of ours":
            stack.enter_context(
                our_backend(tmp_path / "be2", "be2", lab.backends[1], lab.master[0])
            )
        else:
            lab.run("start", "be2")
        for backend, user in zip(lab.backends, ("user1", "user2"), strict=True):
            admin = logged_in(backend, "cyrus")
            ok(admin.create(f"user/{user}"))
            admin.logout()
        stack.enter_context(our_frontend(tmp_path / "fe", lab.master[0]))
        yield FRONTEND


def test_whole_sessions_are_passed_on(cyrus_parts: Lab, tmp_path: Path) -> None:
    """A multiplexor before a Cyrus that knows nothing of it: what the client hears is Cyrus' own."""
    cyrus_parts.run("start", "mupdate", "be1")
    admin = logged_in(cyrus_parts.backends[0], "cyrus")
    ok(admin.create("user/user1"))
    admin.logout()
    more = {"mode": "multiplexor"}
    with our_frontend(tmp_path / "fe", cyrus_parts.master[0], more=more) as program:
        client = logged_in(FRONTEND, "user1")
        assert "Cyrus" in client.ask("ID NIL") and "X-QUOTA" in client.ask("CAPABILITY")
        work_in_own_mailboxes(client, "user1")
        client.logout()
        assert popped(FRONTEND, "user1") == [b"first"]
        check_scripts(FRONTEND, "user1")
        # IMAP and POP3; its ManageSieve offers UNAUTHENTICATE, and is served by commands
        assert program.log.read_text().count('"backend": "be1.murder.test"') == 2


def check_programs(frontend: str, user: str, folder: Path) -> None:
    """Those that keep scripts."""
    for program in PROGRAMS.values():
        program(Where(frontend, 4190, user, "secret", folder))


def check_webmail(frontend: str, user: str, folder: Path) -> None:
    """A person makes a filter, by which mail is thrown away then."""
    places = (frontend, 143), (frontend, 4190)
    make_a_filter(folder, *places, user, "secret", "filters-cyrus")
    client = logged_in(frontend, user)
    before = subjects(client, "INBOX")
    for subject in ("[list]", "kept"):
        assert deliver(frontend, subject, user)[user][0] == 250
    assert subjects(client, "INBOX") == [*before, "kept"]
    client.ask("SELECT INBOX")
    client.ask(r"STORE * +FLAGS (\Deleted)")
    client.ask("EXPUNGE")
    client.logout()


def check_scripts(frontend: str, user: str) -> None:
    with ManageSieve(frontend) as client:
        assert client.login(user).is_ok
        client.ask('PUTSCRIPT "a"', b'require "fileinto";\r\nfileinto "INBOX/x";\r\n')
        assert not client.attempt('PUTSCRIPT "b"', b"keeep;\r\n").is_ok
        client.ask('SETACTIVE "a"')
        assert client.scripts() == {"a": True}
        assert 'fileinto "INBOX/x"' in client.ask('GETSCRIPT "a"')
        client.ask('SETACTIVE ""')
        client.ask('DELETESCRIPT "a"')


def share(one: Imap, user: str, other: str) -> None:
    """A mailbox of one's for both."""
    one.ask("CREATE INBOX/both")
    one.ask(f"SETACL INBOX/both {other} lrswipkxtecd")
    assert other in one.ask("GETACL INBOX/both")
    assert f"user/{user}/both" not in one.ask('LIST "" "INBOX/*"')


def test_a_whole_murder_behind_it(frontend: str, tmp_path: Path) -> None:
    one, two = logged_in(frontend, "user1"), logged_in(frontend, "user2")
    for client, user in ((one, "user1"), (two, "user2")):
        work_in_own_mailboxes(client, user)
    check_delivery_and_pop3(frontend)
    for user in ("user1", "user2"):
        check_scripts(frontend, user)
    check_programs(frontend, "user1", tmp_path)
    check_webmail(frontend, "user1", tmp_path)
    check_idle(frontend, two)
    share(one, "user1", "user2")
    share(two, "user2", "user1")
    check_lists(one)
    check_between(one, "user/user2/both")
    check_between(two, "user/user1/both")
    check_rivals(frontend, one, "user/user2/both")
    check_quota(frontend, one)
    for client in (one, two):
        client.logout()


def work_in_own_mailboxes(client: Imap, user: str) -> None:
    ok(client.append("INBOX", r"(\Seen)", "", message("first")))
    ok(client.append("INBOX", "", "", message("second")))
    assert subjects(client, "INBOX") == ["first", "second"]
    client.ask("SELECT INBOX")
    assert client.ask("SEARCH SUBJECT second").startswith("* SEARCH 2")
    assert r"\Flagged" in client.ask(r"UID STORE 1 +FLAGS (\Flagged)")
    client.ask("CREATE INBOX/sub")
    client.ask("UID COPY 1:2 INBOX/sub")
    client.ask("UID MOVE 2 INBOX/sub")
    assert "MESSAGES 3" in client.ask("STATUS INBOX/sub (MESSAGES)")
    assert client.ask("UID SEARCH ALL").startswith("* SEARCH 1\n")
    client.ask("SUBSCRIBE INBOX/sub")
    assert "INBOX/sub" in client.ask('LSUB "" *')
    client.ask("RENAME INBOX/sub INBOX/renamed")
    listed = client.ask('LIST "" *')
    assert "INBOX/renamed" in listed and "INBOX/sub" not in listed
    assert "MESSAGES 3" in client.ask("STATUS INBOX/renamed (MESSAGES UIDNEXT)")
    client.ask("UNSELECT")
    client.ask("DELETE INBOX/renamed")
    assert "INBOX/renamed" not in client.ask('LIST "" *')
    assert "NO" in client.attempt("SELECT INBOX/renamed")
    assert user in client.ask("GETACL INBOX")
    assert "MYRIGHTS INBOX" in client.ask("MYRIGHTS INBOX")


def check_delivery_and_pop3(frontend: str) -> None:
    said = deliver(frontend, "mail", "user1", "user2", "nobody")
    assert [said[user][0] for user in ("user1", "user2", "nobody")] == [250, 250, 550], said
    for user in ("user1", "user2"):
        assert popped(frontend, user) == [b"first", b"mail"]


def check_idle(frontend: str, client: Imap) -> None:
    """Another session's mail is told of without a command."""
    client.ask("SELECT INBOX")
    client.send(b"i IDLE\r\n")
    while not client.readline().startswith(b"+"):
        pass
    assert deliver(frontend, "idle", "user2")["user2"][0] == 250
    while not (line := client.readline()).startswith(b"* 3 EXISTS"):
        assert line
    client.send(b"DONE\r\n")
    while not (line := client.readline()).startswith(b"i OK"):
        assert line
    client.ask("UNSELECT")


def check_lists(one: Imap) -> None:
    listed = one.ask('LIST "" * RETURN (STATUS (MESSAGES))')
    for name in ("INBOX", "INBOX/both", "user/user2/both"):
        assert f" {name}\n" in listed.replace('"', ""), listed
        assert f"* STATUS {name} (MESSAGES" in listed.replace('"', ""), listed
    assert "* LIST" in one.ask('LIST "" (INBOX "user/%/both") RETURN (CHILDREN SUBSCRIBED)')
    assert "user/user2/both" in one.ask('LIST "" "user/*"')


def check_between(client: Imap, other: str) -> None:
    """COPY and MOVE to a mailbox on the other backend, and back."""
    before = subjects(client, other)
    client.ask("SELECT INBOX")
    copied = client.ask("UID COPY 1 " + other)
    assert "COPYUID" in copied
    client.ask(r"UID STORE 1 +FLAGS ($Keyword \Answered)")
    moved = client.ask("UID MOVE 1 " + other)
    assert "COPYUID" in moved and ("EXPUNGE" in moved or "VANISHED" in moved)
    assert "MESSAGES 1" in client.ask("STATUS INBOX (MESSAGES)") or True
    client.ask("UNSELECT")
    assert subjects(client, other) == [*before, "first", "first"]
    client.ask("SELECT " + other)
    flags = client.ask("FETCH * (FLAGS INTERNALDATE)")
    assert "$Keyword" in flags and r"\Answered" in flags and r"\Seen" in flags
    uid = client.ask("UID SEARCH KEYWORD $Keyword").split("\n")[0].split()[-1]
    client.ask(f"UID MOVE {uid} INBOX")
    client.ask("UNSELECT")
    assert subjects(client, other) == [*before, "first"]
    assert subjects(client, "INBOX").count("first") == 1


def check_rivals(frontend: str, one: Imap, other: str) -> None:
    """Two sessions move the same messages to the other backend at the same instant: each is there once."""
    before = subjects(one, other)
    one.ask("CREATE INBOX/wanted")
    names = [f"rival{number}" for number in range(12)]
    for name in names:
        ok(one.append("INBOX/wanted", "", "", message(name)))
    rivals = [logged_in(frontend, "user1") for _ in range(2)]
    for rival in rivals:
        rival.ask("SELECT INBOX/wanted")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda rival: rival.attempt("UID MOVE 1:* " + other), rivals))
    assert any(" OK " in answer for answer in answers), answers
    assert sorted(subjects(one, other)) == sorted([*before, *names]), answers
    assert subjects(one, "INBOX/wanted") == []
    for rival in rivals:
        rival.logout()


def check_quota(frontend: str, one: Imap) -> None:
    admin = logged_in(frontend, "cyrus")
    admin.ask("SETQUOTA user/user1 (STORAGE 1000)")
    assert "STORAGE" in admin.ask("GETQUOTA user/user1")
    assert "1000" in one.ask("GETQUOTAROOT INBOX")
    admin.logout()
