"""`murder ctl import` and `murder ctl user`: mail from an IMAP server and a Maildir, once and again."""

import imaplib
import mailbox
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kit.demo import Demo, running_demo
from tests.kit.ports import free_port_base
from tests.kit.process import ROOT, murder_command, run_murder
from tests.rooms.cli.ctl.test_ctl_mailboxes import Ctl

DATE = '"02-Jan-2020 03:04:05 +0100"'


def rows(demo: Demo, user: str, folder: str) -> list[bytes]:
    """Flags, date and octets of a folder's messages."""
    with demo.imap(demo.frontend, user) as client:
        assert client.select(f'"{folder}"', readonly=True)[0] == "OK"
        found = client.fetch("1:*", "(INTERNALDATE FLAGS BODY.PEEK[])")[1]
    shown = [b" ".join(row[:2]) for row in found if isinstance(row, tuple)]
    return sorted(
        re.sub(rb"\\Recent ?", b"", row.partition(b" ")[2]).replace(b" )", b")") for row in shown
    )


def test_a_mailbox_of_another_server_comes_with_folders_flags_and_dates(
    ctl: Ctl, demo: Demo
) -> None:
    with demo.imap(demo.frontend, "user1") as client:
        client.create('"INBOX/Alte Post"')
        for number in range(5):
            flags = r"(\Seen $Work)" if number % 2 else ""
            body = f"Message-ID: <{number}@x>\r\nSubject: {number}\r\n\r\n" + "x\r\n" * 900 * number
            client.append("INBOX", flags, DATE, body.encode())
        client.append('"INBOX/Alte Post"', r"(\Flagged)", DATE, b"Subject: old\r\n\r\nyes\r\n")
    url = f"imap+insecure://user1:secret@127.0.0.1:{demo.frontend['imap']}"
    first = ctl.json("import", url, "--user", "user2")
    assert (first["messages"], first["folders"], first["present"]) == (6, 2, 0)
    for folder in ("INBOX", "INBOX/Alte Post"):
        assert rows(demo, "user2", folder) == rows(demo, "user1", folder)
    with demo.imap(demo.frontend, "user1") as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Answered)")
        client.append("INBOX", "", DATE, b"Message-ID: <new@x>\r\n\r\nnew\r\n")
    again = ctl.json("import", url, "--user", "user2")
    assert (again["messages"], again["present"], again["flags"]) == (1, 6, 1)
    assert rows(demo, "user2", "INBOX") == rows(demo, "user1", "INBOX")


def test_a_maildir_comes_once(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "Maildir")
    for number in range(3):
        message = mailbox.MaildirMessage(f"Message-ID: <m{number}@x>\nSubject: {number}\n\nhello\n")
        message.set_flags("SF" if number else "")
        message.set_date(time.time() - 1000 * number)
        box.add(message)
    box.add_folder("Sent").add("Subject: sent\n\nx\n")
    source = f"maildir:{tmp_path / 'Maildir'}"
    assert ctl.json("import", source, "--user", "user3")["messages"] == 4
    again = ctl.json("import", source, "--user", "user3")
    assert (again["messages"], again["present"]) == (0, 4)
    assert len(rows(demo, "user3", "INBOX/Sent")) == 1
    shown = ctl.json("user", "show", "user3")
    assert {one["name"]: one["messages"] for one in shown["mailboxes"]} == {
        "user/user3": 3,
        "user/user3/Sent": 1,
    }


def test_what_cannot_be_imported_is_said(ctl: Ctl, demo: Demo, tmp_path: Path) -> None:
    assert "is no Maildir" in ctl("import", f"maildir:{tmp_path}", "--user", "user1", code=1)
    assert "expected imaps://" in ctl("import", "ftp://x", "--user", "user1", code=1)
    wrong = f"imap+insecure://user1:wrong@127.0.0.1:{demo.frontend['imap']}"
    assert ": [AUTHENTICATIONFAILED] " in ctl("import", wrong, "--user", "user2", code=1)
    assert "murder ctl user create nobody" in ctl("import", wrong, "--user", "nobody", code=1)
    away = f"imap://user1:x@127.0.0.1:{free_port_base(1)}"
    assert "Connection refused" in ctl("import", away, "--user", "user2", code=3)


def test_passwords_go_to_servers_whose_certificate_is_trusted_only(
    ctl: Ctl, demo: Demo, tmp_path: Path
) -> None:
    """The source is another murder, of an authority that ours does not know."""
    with running_demo("--users", "1", folder=tmp_path / "other") as other:
        for scheme, port in (("imap", "imap"), ("imaps", "imaps")):
            source = f"{scheme}://user1:secret@127.0.0.1:{other.frontend[port]}"
            said = ctl("import", source, "--user", "user4", code=3)
            assert "certificate is not trusted" in said and "--ca" in said
            assert "0 messages" in ctl("import", source, "--user", "user4", "--no-verify")
            ca = str(other.info["ca"])
            assert "0 messages" in ctl("import", source, "--user", "user4", "--ca", ca)


def test_a_user_is_made_and_removed(ctl: Ctl) -> None:
    ctl(
        *("user", "create", "eve", "--quota", "STORAGE=100"),
        *("--folder", "Sent", "--folder", "Entwürfe"),
    )
    assert "eve" in ctl("user", "list")
    assert "No password was set" in ctl("user", "create", "ada", "--no-folders")
    ctl("user", "delete", "ada", "--yes")
    assert ctl.json("user", "show", "eve")["quota"] == {"user/eve": ["STORAGE", "0", "100"]}
    assert "Entwürfe" in ctl("user", "show", "eve")
    plan = ctl("user", "rename", "eve", "eva", code=2)
    assert "user/eve/Sent" in plan and "user/eva/Sent" in plan and "--yes" in plan
    assert "user1 has mailboxes already" in ctl("user", "rename", "eve", "user1", code=1)
    assert "No user ewe" in ctl("user", "rename", "ewe", "eva", code=1)
    ctl("user", "rename", "eve", "eva", "--yes")
    assert "--yes" in ctl("user", "delete", "eva", code=2)
    assert "3 removed" in ctl("user", "delete", "eva", "--yes")


def test_a_name_by_which_nobody_can_log_in_gets_no_mailbox(ctl: Ctl) -> None:
    for words in (
        ("user", "create", "anna@example.org"),
        ("mailbox", "create", "user/anna@example.org"),
        ("user", "show", "user1@example.org"),
        ("user", "rename", "user1", "anna@example.org", "--yes"),
    ):
        said = ctl(*words, code=1)
        assert "domains is false" in said and "domains = true" in said
    assert "example.org" not in ctl("mailbox", "list")


def listed(client: imaplib.IMAP4) -> dict[bytes, set[bytes]]:
    """What is subscribed, with its special uses."""
    client._simple_command("LIST", "(SUBSCRIBED)", '""', "*", "RETURN (SPECIAL-USE)")
    shown: list[Any] = client.untagged_responses.pop("LIST")
    found = {line.rpartition(b" ")[2]: set(line[1 : line.index(b")")].split()) for line in shown}
    no_uses = {b"\\HasNoChildren", b"\\HasChildren"}
    return {name.strip(b'"'): words - no_uses for name, words in found.items()}


def test_the_folders_of_a_new_user_are_as_mail_programs_want_them(ctl: Ctl, demo: Demo) -> None:
    ctl("user", "delete", "user4", "--yes")
    ctl("user", "create", "user4", "--folder", "Sent", "--folder", "Entwürfe", "--folder", "junk")
    with demo.imap(demo.frontend, "user4") as client:
        shown = listed(client)
    assert shown.pop(b"INBOX") == {b"\\Subscribed"}
    assert shown == {
        b"INBOX/Entw&APw-rfe": {b"\\Subscribed"},
        b"INBOX/junk": {b"\\Subscribed", b"\\Junk"},
        b"INBOX/Sent": {b"\\Subscribed", b"\\Sent"},
    }


def test_a_new_user_gets_a_password_a_mailbox_and_the_usual_folders_in_one_go(
    ctl: Ctl, demo: Demo
) -> None:
    made = ctl.json("user", "create", "olga", "--password-stdin", given="hush\n")
    assert made["password"] is True and made["folders"] == [
        f"user/olga/{one}" for one in ("Archive", "Drafts", "Junk", "Sent", "Trash")
    ]
    with demo.imap(demo.frontend, "olga", "hush") as client:
        shown = listed(client)
    ctl("user", "delete", "olga", "--yes")
    assert "password" not in ctl("user", "create", "olga"), "they have one"
    assert shown.pop(b"INBOX") == {b"\\Subscribed"}
    assert shown == {
        b"INBOX/" + one: {b"\\Subscribed", b"\\" + one}
        for one in (b"Archive", b"Drafts", b"Junk", b"Sent", b"Trash")
    }
    said = ctl("user", "create", "olga", "--password-stdin", given="other\n", code=1)
    assert "olga has a password" in said and "murder auth passwd olga" in said
    with demo.imap(demo.frontend, "olga", "hush"):
        pass  # it is as it was


def test_a_user_who_cannot_be_made_has_no_password_either(ctl: Ctl, demo: Demo) -> None:
    words = ("user", "create", "petr", "--password-stdin")
    assert "nowhere" in ctl(*words, "--server", "nowhere", given="hush\n", code=1)
    assert "password" in ctl(*words, given="\n", code=1)
    with pytest.raises(imaplib.IMAP4.error):
        demo.imap(demo.frontend, "petr", "hush")
    assert ctl.json("user", "create", "petr", "--no-folders")["password"] is False
    assert len(ctl.json("user", "show", "petr")["mailboxes"]) == 1


def test_a_password_is_not_put_where_no_users_are(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    ours = Path(demo.info["operator"])
    for path in ours.parent.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    file.write_text(ours.read_text().replace(f"{demo.folder}/users", f"{tmp_path}/users"))
    done = subprocess.run(
        [*murder_command(), "ctl", "user", "create", "rosa", "--password-stdin", "--config", file],
        input="hush\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1 and "knows no users" in done.stderr
    assert not (tmp_path / "users").exists()


def test_who_makes_a_user_as_a_node_is_told_who_may(demo: Demo, tmp_path: Path) -> None:
    """On a host where users are kept, with the file that its node has."""
    authority = str(demo.folder / "ca")
    run_murder(
        "ca", "issue", "be9.murder.test", "--role", "backend", "--dir", authority, "--out", tmp_path
    )
    theirs = (demo.folder / "be1" / "murder.toml").read_text().partition("\n[operator]")[0]
    file = tmp_path / "murder.toml"
    file.write_text(theirs.replace("be1.murder.test.", "be9.murder.test."))
    words = ("ctl", "user", "create", "rosa", "--password-stdin", "--config", file)
    said = run_murder(*words, said="hush\n", code=1).stderr
    assert "You may not create a mailbox there" in said
    assert (
        f"{file} has no [operator], so be9.murder.test.pem was shown, which is no operator's"
        in said
    )
    assert "--role operator" in said and "--as ADMIN" in said
    with pytest.raises(imaplib.IMAP4.error):
        demo.imap(demo.frontend, "rosa", "hush")
