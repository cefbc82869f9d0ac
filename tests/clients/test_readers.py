"""neomutt in a terminal, fetchmail, and Python's imaplib and poplib."""

import imaplib
import poplib
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kit.demo import Demo, message, wanted
from tests.kit.waiting import LIMIT_S, until


def tmux(socket_name: str, *words: str) -> str:
    done = subprocess.run(
        ["tmux", "-L", socket_name, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def screen_with(socket_name: str, text: str, within_s: float = LIMIT_S) -> str:
    """The terminal's contents once `text` is on it."""

    def shown() -> str:
        return tmux(socket_name, "capture-pane", "-p")

    def shown_with_it() -> str:
        on_it = shown()
        return on_it if text in on_it else ""

    # a person's eye; the terminal has no event to wait for
    return until(shown_with_it, lambda: f"{text!r} appears on:\n{shown()}", within_s, 0.1)


@pytest.mark.skipif(bool(wanted("neomutt", "tmux")), reason=wanted("neomutt", "tmux"))
def test_neomutt_shows_reads_flags_and_deletes(
    demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    for position in (1, 2):
        demo.deliver(server, user, message(f"letter {position}", f"text of {position}"))
    rc = tmp_path / "rc"
    rc.write_text(
        f'set folder="imap://{user}@{server["host"]}:{server["imap"]}/"\nset spoolfile="+INBOX"\n'
        f'set imap_pass="{demo.password}"\nset ssl_starttls=no\nset ssl_force_tls=no\n'
        "set header_cache=\nset delete=yes\nset sort=mailbox-order\nset mail_check=1\n"
        f'set tmpdir="{tmp_path}"\nset confirmappend=no\nset quit=yes\n'
    )
    name = f"murder-{number}"
    tmux(name, "new-session", "-d", "-x", "100", "-y", "30", f"neomutt -F {rc}")
    try:
        screen_with(name, "letter 2")
        tmux(name, "send-keys", "1", "Enter", "Enter")
        screen_with(name, "text of 1")
        tmux(name, "send-keys", "i")
        screen_with(name, "letter 2")
        tmux(name, "send-keys", "F", "2", "Enter", "d", "q")
        client = demo.imap(server, user)

        def left() -> list[Any]:
            client.select("INBOX", readonly=True)
            found: list[Any] = client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
            return found if len([part for part in found if isinstance(part, tuple)]) == 1 else []

        shown = repr(until(left, "one is left", every_s=0.1))
        assert "letter 1" in shown and "\\\\Seen" in shown and "letter 2" not in shown
        client.logout()
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], check=False, capture_output=True)


@pytest.mark.skipif(bool(wanted("neomutt", "tmux")), reason=wanted("neomutt", "tmux"))
def test_neomutt_resynchronises_what_it_has_cached(
    demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    """RFC 7162: with QRESYNC it is told what has changed and gone while it was away, and asks for nothing else."""
    server, user = demo.server(kind, number), demo.user(number)
    for position in (1, 2, 3):
        demo.deliver(server, user, message(f"letter {position}", f"text of {position}"))
    rc = tmp_path / "rc"
    rc.write_text(
        f'set folder="imap://{user}@{server["host"]}:{server["imap"]}/"\nset spoolfile="+INBOX"\n'
        f'set imap_pass="{demo.password}"\nset ssl_starttls=no\nset ssl_force_tls=no\n'
        "set imap_condstore=yes\nset imap_qresync=yes\n"
        f'set header_cache="{tmp_path}/cache"\nset sort=mailbox-order\n'
        f'set tmpdir="{tmp_path}"\nset quit=yes\n'
    )
    name = f"murder-resync-{number}"

    def look(at: str) -> str:
        tmux(name, "new-session", "-d", "-x", "100", "-y", "30", f"neomutt -F {rc}")
        try:
            shown = screen_with(name, at)
            tmux(name, "send-keys", "q")
            command = ["tmux", "-L", name, "has-session"]
            until(
                lambda: subprocess.run(command, check=False, capture_output=True).returncode,
                "it has written its cache and ended",
                every_s=0.1,
            )
            return shown
        finally:
            subprocess.run(["tmux", "-L", name, "kill-server"], check=False, capture_output=True)

    assert "letter 1" in look("letter 3")
    client = demo.imap(server, user)
    client.select("INBOX")
    client.store("1", "+FLAGS", "(\\Flagged)")
    client.store("2", "+FLAGS", "(\\Deleted)")
    client.expunge()
    client.logout()
    demo.deliver(server, user, message("letter 4", "text of 4"))
    shown = look("letter 4")
    assert "letter 2" not in shown
    lines = {
        word: line
        for line in shown.splitlines()
        for word in ("letter 1", "letter 3")
        if word in line
    }
    assert "!" in lines["letter 1"] and "!" not in lines["letter 3"]


@pytest.mark.skipif(bool(wanted("fetchmail")), reason=wanted("fetchmail"))
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_fetchmail_takes_the_mail_away(
    demo: Demo, number: int, kind: str, protocol: str, tmp_path: Path
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    for position in range(3):
        assert demo.deliver(server, user, message(f"no {position}")).startswith("250")
    rc, box = tmp_path / "rc", tmp_path / "box"
    rc.write_text(
        f"poll {server['host']} proto {protocol.upper()} port {server[protocol]}\n"
        f'  user "{user}" password "{demo.password}" sslproto "" fetchall no keep\n'
        f"  mda \"/bin/sh -c 'cat >> {box}'\"\n"
    )
    rc.chmod(0o600)
    done = subprocess.run(
        ["fetchmail", "-f", str(rc), "--nosyslog", "-i", str(tmp_path / "ids"), "-v"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "FETCHMAILHOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = box.read_text()
    assert all(f"Subject: no {position}" in text for position in range(3))
    client = demo.imap(server, user)
    assert client.select("INBOX")[1] == [b"0"]
    client.logout()


def test_imaplib_does_all_a_client_does(demo: Demo, number: int, kind: str) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    client = imaplib.IMAP4(server["host"], server["imap"], timeout=60)
    context = ssl.create_default_context(cafile=demo.info["ca"])
    context.check_hostname = False
    client.starttls(context)
    client.login(user, demo.password)
    for name in ("INBOX/a", "INBOX/a/b", "INBOX/c"):
        assert client.create(name)[0] == "OK"
        assert client.subscribe(name)[0] == "OK"
    assert client.create("INBOX/a")[0] == "NO"
    assert (
        client.append("INBOX", r"(\Flagged $Junk)", '"01-Jan-2020 10:00:00 +0100"', message("one"))[
            0
        ]
        == "OK"
    )
    assert client.append("INBOX", "", "", message("two", "x" * 200_000))[0] == "OK"
    assert client.select("INBOX")[1] == [b"2"]
    assert client.search(None, "FLAGGED", "KEYWORD", "$Junk")[1] == [b"1"]
    assert client.search(None, "SUBJECT", "two")[1] == [b"2"]
    assert b'INTERNALDATE " 1-Jan-2020 10:00:00 +0100"' in client.fetch("1", "(INTERNALDATE)")[1][0]  # type: ignore[operator]
    body = client.fetch("2", "(BODY.PEEK[])")[1][0]
    assert isinstance(body, tuple) and body[1] == message(
        "two", "x" * 200_000, body[1].split(b"<")[2].split(b">")[0].decode()
    )
    assert client.copy("1:2", "INBOX/a/b")[0] == "OK"
    assert client.store("2", "+FLAGS", r"(\Deleted)")[0] == "OK"
    assert client.expunge()[1] == [b"2"]
    assert client.rename("INBOX/a", "INBOX/z")[0] == "OK"
    assert client.status("INBOX/z/b", "(MESSAGES UNSEEN)")[1] == [
        b"INBOX/z/b (MESSAGES 2 UNSEEN 2)"
    ]
    listed = [
        line.decode().rsplit(" ", 1)[1] for line in client.list()[1] if isinstance(line, bytes)
    ]
    assert listed == ["INBOX", "INBOX/c", "INBOX/z", "INBOX/z/b"]
    assert client.delete("INBOX/z/b")[0] == "OK"
    assert client.close()[0] == "OK"
    assert client.logout()[0] == "BYE"


def test_poplib_reads_and_deletes_only_with_quit(demo: Demo, number: int, kind: str) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    octets = message("dots", ".one\r\n..two\r\n.\r\nend")
    for _ in range(2):
        assert demo.deliver(server, user, octets).startswith("250")

    def login() -> poplib.POP3:
        client = poplib.POP3(server["host"], server["pop3"], timeout=60)
        client.user(user)
        client.pass_(demo.password)
        return client

    client = login()
    assert client.stat()[0] == 2
    assert client.retr(1)[1][-4:] == [b".one", b"..two", b".", b"end"]
    assert len(client.uidl()[1]) == 2
    client.dele(1)
    client.close()
    client = login()
    assert client.stat()[0] == 2
    client.dele(1)
    client.quit()
    client = login()
    assert client.stat()[0] == 1
    client.quit()


def test_mail_of_both_backends_is_reached_through_one_address(demo: Demo, number: int) -> None:
    other = next(n for n in range(number + 1, 60) if demo.home(n) != demo.home(number))
    frontend = demo.frontend
    with demo.imap(frontend, demo.user(other)) as sharer:
        assert sharer.create("INBOX/shared")[0] == "OK"
        assert sharer.setacl("INBOX/shared", demo.user(number), "lrswipte")[0] == "OK"
        assert sharer.append("INBOX/shared", r"(\Answered)", "", message("theirs"))[0] == "OK"
    shared = f"user/{demo.user(other)}/shared"
    with demo.imap(frontend, demo.user(number)) as client:
        assert any(shared.encode() in line for line in client.list()[1] if isinstance(line, bytes))
        assert client.append("INBOX", r"(\Flagged)", "", message("mine"))[0] == "OK"
        assert client.select(shared)[1] == [b"1"]
        assert client.copy("1", "INBOX")[0] == "OK"  # from one backend to the other
        client.select("INBOX")
        assert client.search(None, "ANSWERED", "SUBJECT", "theirs")[1] == [b"2"]
        typ, answer = client.uid("MOVE", "1", shared)
        assert typ == "OK", answer
        assert client.search(None, "ALL")[1] == [b"1"]
        client.select(shared)
        assert client.search(None, "FLAGGED", "SUBJECT", "mine")[1] == [b"2"]
