"""A real Cyrus backend sends users to a backend of ours by XFER: all that a client can see stays as it was."""

import re
from pathlib import Path

from tests.cyrus.conftest import Lab
from tests.cyrus.our_nodes import our_node, rows_at
from tests.cyrus.our_roles import Imap, deliver, logged_in, message, ok, our_backend, subjects
from tests.kit.managesieve import ManageSieve

TARGET = "127.0.0.13"
TAKES = {"takes_xfer_from": ["murder"]}
ITEMS = "(UID FLAGS INTERNALDATE SAVEDATE MODSEQ RFC822.SIZE EMAILID BODY.PEEK[])"
COUNTS = "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ UNSEEN)"
LISTS = "B\u00fcro \u2615"  # included, which Cyrus does, too
SCRIPTS = {
    "work": f'require ["fileinto", "include"];\r\ninclude :personal "{LISTS}";\r\n'
    'fileinto "INBOX/sub";\r\n'.encode(),
    "a b": b"discard;\n",
    LISTS: b'require ["imap4flags"];\nif header :contains "subject" "list" { addflag "$List"; keep; stop; }\n',
}
BOXES = ("INBOX", "INBOX/sub", '"INBOX/s p.x"')


def fill(client: Imap) -> None:
    """Messages in several mailboxes: flags, keywords, dates, copies, removed ones; rights, subscriptions, annotations."""
    for number in range(6):
        flags = r"(\Seen $Work)" if number % 2 else r"(\Flagged)"
        date = f'"01-Feb-2024 10:00:0{number} +0100"'
        ok(client.append("INBOX", flags, date, message(f"m{number}")))
    for box in (*BOXES[1:], "INBOX/gone"):
        client.ask(f"CREATE {box}")
    ok(client.append("INBOX/sub", "(kw)", "", message("big") + b"x" * 300_000))
    client.ask("SELECT INBOX")
    client.ask("UID COPY 1:3 INBOX/sub")
    client.ask(r"UID STORE 2 +FLAGS (\Deleted)")
    client.ask("EXPUNGE")
    client.ask("UID STORE 3 -FLAGS (\\Flagged)")
    client.ask("UNSELECT")
    client.ask("DELETE INBOX/gone")
    client.ask("SETACL INBOX user2 lrswi")
    client.ask("SUBSCRIBE INBOX/sub")
    client.ask('SETMETADATA INBOX/sub (/private/comment "mine" /shared/comment "ours")')


def facts_of(row: str) -> set[str]:
    """What a FETCH response says, each with its UID."""
    uid = re.search(r"UID \d+", row)
    if uid is None:
        return set()
    flags = re.search(r"FLAGS \(([^)]*)\)", row)
    facts = {"FLAGS " + " ".join(sorted(flags[1].split() if flags else []))}
    for item in (
        r'(?:INTERNAL|SAVE)DATE "[^"]*"',
        r"MODSEQ \(\d+\)",
        r"SIZE \d+",
        r"EMAILID \(\w+\)",
        r"Subject: .*",
    ):
        facts |= {found.strip() for found in re.findall(item, row)}
    return {f"{uid[0]} {fact}" for fact in facts}


def as_seen(client: Imap) -> list[set[str]]:
    """All that a client can see, in words that both servers use. What is only for one session (`\\Recent`) apart."""
    facts = []
    for box in BOXES:
        status = re.search(r"\((.*)\)", client.ask(f"STATUS {box} {COUNTS}"))
        assert status is not None
        facts.append(set(re.findall(r"[A-Z]+ \d+", status[1])))
        facts.append(set(re.findall(r"\[(MAILBOXID \S+)\]", client.ask(f"EXAMINE {box}"))))
        text = client.ask("UID FETCH 1:* " + ITEMS).replace(r"\Recent", "")
        facts.append({fact for row in text.split("* ")[1:] for fact in facts_of(row)})
        told = client.ask(f"EXAMINE {box} (QRESYNC (1 1))") if box == "INBOX" else ""
        facts.append(set(re.findall(r"VANISHED \S+ \S+", told)))
        client.ask("UNSELECT")
    metadata = client.ask("GETMETADATA INBOX/sub (/private/comment /shared/comment)")
    acl = re.search(r"ACL INBOX (.*)", client.ask("GETACL INBOX"))
    facts.append(set(re.findall(r'/\S+ "?\w+"?', metadata.replace('"', ""))))
    facts.append({acl[1]} if acl else set())
    facts.append(set(re.findall(r'"/" (.*)', client.ask('LSUB "" *').replace('"INBOX"', "INBOX"))))
    facts.append(set(re.findall(r"STORAGE \d+ (\d+)", client.ask("GETQUOTAROOT INBOX"))))
    return facts


def literal(name: str) -> str:
    """A Cyrus takes no other string that is not ASCII."""
    return f"{{{len(name.encode())}+}}\r\n{name}"


def make_user(lab: Lab) -> None:
    admin = logged_in(lab.backends[0], "cyrus")
    admin.ask("CREATE user/user1")
    admin.logout()


def test_a_user_goes_from_cyrus_to_us_as_they_were(cyrus_parts: Lab, tmp_path: Path) -> None:
    lab = cyrus_parts
    with (
        our_node(tmp_path / "master", "mupdate.murder.test", *lab.master),
        our_backend(tmp_path / "be9", "be9", TARGET, lab.master[0], TAKES),
    ):
        lab.run("start", "be1")
        make_user(lab)
        client = logged_in(lab.backends[0], "user1")
        fill(client)
        with ManageSieve(lab.backends[0]) as sieve:
            assert sieve.login("user1").is_ok
            for name, script in SCRIPTS.items():
                sieve.ask(f"PUTSCRIPT {literal(name)}", script)
            sieve.ask('SETACTIVE "work"')
            as_told = sieve.scripts()  # a Cyrus tells LISTS as its message has it (RFC 2047)
        admin = logged_in(lab.backends[0], "cyrus")
        admin.ask("SETQUOTA user/user1 (STORAGE 50000)")
        client.ask("ENABLE QRESYNC")
        before = as_seen(client)
        client.logout()
        assert "* OK USER user1" in admin.ask("XFER user/user1 be9.murder.test")
        rows = [row for row in rows_at(lab.master[0]) if b"user1" in row[1].split(b".")]
        assert len(rows) == 5 and all(row[2] == b"be9.murder.test!default" for row in rows), rows
        direct = Imap(TARGET, timeout=30)
        direct.authenticate("PLAIN", lambda _: b"user1\0murder\0secret")
        direct.ask("ENABLE QRESYNC")
        for was, is_now in zip(before, as_seen(direct), strict=True):
            assert was == is_now
        # what is not there cannot go
        assert re.search("Mailbox does not exist", admin.attempt("XFER user/user1 be9.murder.test"))
        # and back again, with what has happened here
        direct.ask("SELECT INBOX")
        direct.ask(r"UID STORE 5 +FLAGS (\Answered later)")
        direct.ask(r"UID STORE 4 +FLAGS (\Deleted)")
        direct.ask("EXPUNGE")
        ok(direct.append("INBOX", "", "", message("new")))
        direct.ask("UNSELECT")
        before = as_seen(direct)
        direct.logout()
        ours = logged_in(TARGET, "cyrus")
        assert "* OK USER user1" in ours.ask("XFER user/user1 be1.murder.test")
        rows = [row for row in rows_at(lab.master[0]) if b"user.user1" in row[1]]
        assert all(b"be1.murder.test!" in row[2] for row in rows if row[1][:4] == b"user"), rows
        with ManageSieve(lab.backends[0]) as sieve:  # as it was
            assert sieve.login("user1").is_ok
            assert sieve.scripts() == as_told and as_told["work"] and len(as_told) == 3
            (encoded,) = as_told.keys() - SCRIPTS.keys()
            for name, script in SCRIPTS.items():
                known_as = encoded if name == LISTS else name
                assert script.decode() in sieve.ask(f"GETSCRIPT {literal(known_as)}")
            sieve.ask('PUTSCRIPT "more"', b"keep;")
        client = logged_in(lab.backends[0], "user1")
        client.ask("ENABLE QRESYNC")
        for was, is_now in zip(before, as_seen(client), strict=True):
            # a message that came to us has another id there, which Cyrus makes of its octets
            own = re.compile("VANISHED|UID 7 EMAILID")
            assert {one for one in was if not own.match(one)} == {
                one for one in is_now if not own.match(one)
            }
        ok(client.append("INBOX", "", "", message("works")))
        client.logout()
        # once more to us: what is still kept of them here is no hindrance
        assert "* OK USER user1" in admin.ask("XFER user/user1 be9.murder.test")
        admin.logout()
        ours.logout()
        # and mail is filtered as there
        direct = Imap(TARGET, timeout=30)
        direct.authenticate("PLAIN", lambda _: b"user1\0murder\0secret")
        for subject, mailbox in (("list", "INBOX"), ("plain", "INBOX/sub")):
            assert deliver(TARGET, subject, "user1")["user1"][0] == 250
            assert subjects(direct, mailbox)[-1] == subject
        direct.ask("SELECT INBOX")
        assert re.search(r"(?m)^\* SEARCH \d+$", direct.ask("SEARCH KEYWORD $List"))
        direct.logout()


def test_what_fails_on_the_way_leaves_all_as_it_was(cyrus_parts: Lab, tmp_path: Path) -> None:
    """Ours dies in the middle; the Cyrus backend has everything, and the next try brings it."""
    lab = cyrus_parts
    folder = tmp_path / "be9"
    with our_node(tmp_path / "master", "mupdate.murder.test", *lab.master):
        lab.run("start", "be1")
        make_user(lab)
        client = logged_in(lab.backends[0], "user1")
        for number in range(40):
            ok(client.append("INBOX", "", "", message(f"m{number}") + b"x" * 500_000))
        admin = logged_in(lab.backends[0], "cyrus")
        with our_backend(folder, "be9", TARGET, lab.master[0], TAKES) as process:
            admin.send(b"X1 XFER user/user1 be9.murder.test\r\n")
            process.until_said("move.begun").kill()
            assert admin.readline().startswith(b"* NO USER user1")
            assert admin.readline().startswith(b"X1 ")
        assert "MESSAGES 40" in client.ask("STATUS INBOX (MESSAGES)")
        ok(client.append("INBOX", "", "", message("later")))
        client.logout()
        with our_backend(folder, "be9", TARGET, lab.master[0], TAKES):
            assert "* OK USER user1" in admin.ask("XFER user/user1 be9.murder.test")
            direct = Imap(TARGET, timeout=30)
            direct.authenticate("PLAIN", lambda _: b"user1\0murder\0secret")
            assert "MESSAGES 41" in direct.ask("STATUS INBOX (MESSAGES)")
            direct.logout()
        admin.logout()
