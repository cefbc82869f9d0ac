"""A plain Dovecot as one of the backends: its mailboxes are put into the list by hand, users come by its master user."""

import poplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.roundcube import make_a_filter
from tests.clients.sieve_programs import PROGRAMS, Where
from tests.kit.demo import Demo, message, reconfigure, running_demo
from tests.kit.managesieve import ManageSieve
from tests.kit.ports import free_port_base
from tests.kit.process import murder_command
from tests.kit.programs.dovecot import dovecot, why_not

NAME = "dove.murder.test"
SERVER = """
[servers."{name}"]
address = "127.0.0.1"
imap = {imap}
pop3 = {pop3}
lmtp = {lmtp}
sieve = {sieve}
tls = "none"
auth = "plain"
proxy_user = "murder"
proxy_password = "proxysecret"
"""


def mailbox_name(line: object) -> str:
    assert isinstance(line, bytes)
    return line.split()[-1].strip(b'"').decode()


def ctl(demo: Demo, *words: str) -> None:
    command = [*murder_command(), "ctl", *words, "--config", str(demo.info["operator"])]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    if reason := why_not():
        pytest.skip(reason)
    base = free_port_base()
    ports = {"imap": base + 70, "pop3": base + 71, "lmtp": base + 72, "sieve": base + 73}
    with (
        running_demo("--users", "4", "--no-tls-required") as running,
        dovecot({"dora": "elsewhere"}, ports),
    ):
        file = running.folder / "fe1" / "murder.toml"
        servers = SERVER.format(name=NAME, **ports)
        reconfigure(running, "fe1", "[namespace]\n", servers + "\n[namespace]\n")
        command = [*murder_command(), "auth", "add", "dora", "--config", str(file)]
        subprocess.run(command, input=f"{running.password}\n", text=True, check=True, timeout=60)
        ctl(running, "mailbox", "enlist", "user/dora", "--server", NAME)
        ctl(running, "mailbox", "enlist", "user/dora/far", "--server", NAME)
        yield running


def test_its_user_works_through_the_frontend(demo: Demo) -> None:
    assert demo.deliver(demo.frontend, "dora", message("delivered")).startswith("250")
    with demo.imap(demo.frontend, "dora") as client:
        names = sorted(mailbox_name(line) for line in client.list()[1])
        assert names == ["INBOX", "INBOX/far"]
        assert client.select("INBOX")[0] == "OK"
        assert client.append("INBOX", r"(\Seen)", "", message("appended"))[0] == "OK"
        assert client.noop()[0] == "OK"
        assert client.search(None, "SUBJECT", "appended")[1] == [b"2"]
        fetched = client.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        assert isinstance(fetched[0], tuple) and fetched[0][1] == b"Subject: delivered\r\n\r\n"
        assert client.store("1", "+FLAGS", r"(\Deleted)")[0] == "OK"
        assert client.expunge()[1] == [b"1"]
        assert client.status("INBOX", "(MESSAGES)")[1] == [b"INBOX (MESSAGES 1)"]
    maildrop = poplib.POP3(demo.frontend["host"], demo.frontend["pop3"], timeout=60)
    maildrop.user("dora")
    maildrop.pass_(demo.password)
    assert maildrop.stat()[0] == 1
    maildrop.quit()


def test_its_users_scripts_are_kept_through_the_frontend(demo: Demo) -> None:
    with ManageSieve(demo.frontend["host"], demo.frontend["sieve"]) as client:
        assert client.login("dora", demo.password).is_ok
        assert "foreverypart" in client.ask("CAPABILITY")  # which it has
        client.ask('PUTSCRIPT "a"', b'require "fileinto";\r\nfileinto "INBOX/far";\r\n')
        bad = client.attempt('PUTSCRIPT "b"', b"keeep;\r\n")
        assert not bad.is_ok and "keeep" in bad
        # without its text, which Cyrus' sieveshell does not take
        assert client.ask('SETACTIVE "a"') == "OK"
        assert client.scripts() == {"a": True}
        assert "fileinto" in client.ask('GETSCRIPT "a"')
        assert "ACTIVE" in client.attempt('DELETESCRIPT "a"')
        client.ask('SETACTIVE ""')
        client.ask('DELETESCRIPT "a"')


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_user_keeps_scripts_with_a_program(program: str, demo: Demo, tmp_path: Path) -> None:
    where = ("localhost", demo.frontend["sieve"], "dora", demo.password)
    PROGRAMS[program](Where(*where, tmp_path, str(demo.info["ca"])))


def test_its_user_makes_a_filter_with_roundcubes_plugin(demo: Demo, tmp_path: Path) -> None:
    fe = demo.frontend
    imap, sieve = ((fe["host"], fe[protocol]) for protocol in ("imap", "sieve"))
    make_a_filter(tmp_path, imap, sieve, "dora", demo.password, "filters-dovecot")
    with ManageSieve(*sieve) as client:
        assert client.login("dora", demo.password).is_ok
        ((script, is_active),) = client.scripts().items()
        assert is_active and "[list]" in client.ask(f'GETSCRIPT "{script}"')


def test_the_other_backends_users_are_where_they_were(demo: Demo) -> None:
    assert demo.deliver(demo.frontend, demo.user(1), message("here")).startswith("250")
    with demo.imap(demo.frontend, demo.user(1)) as client:
        assert client.select("INBOX") == ("OK", [b"1"])
        assert client.search(None, "ALL")[1] == [b"1"]


def test_what_was_enlisted_can_be_taken_out_again(demo: Demo) -> None:
    ctl(demo, "mailbox", "enlist", "shared/dove", "--server", NAME, "--right", "anyone=lrs")
    with demo.imap(demo.frontend, demo.user(2)) as client:
        assert "shared/dove" in [mailbox_name(line) for line in client.list()[1]]
        ctl(demo, "mailbox", "unlist", "shared/dove", "--yes")
        assert "shared/dove" not in [mailbox_name(line) for line in client.list()[1]]
