"""sieve-connect, sievelib, managesieve and Cyrus' sieveshell keep scripts, at a backend and through a frontend."""

from pathlib import Path

import pytest

from tests.clients.sieve_programs import PROGRAMS, Where
from tests.kit.demo import Demo, message
from tests.kit.managesieve import ManageSieve


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_keeps_scripts(
    program: str, demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    port = demo.server(kind, number)["sieve"]
    ca = str(demo.info["ca"])
    user = demo.user(number)
    PROGRAMS[program](Where("localhost", port, user, demo.password, tmp_path, ca))


def test_a_script_files_into_a_mailbox_on_another_backend(demo: Demo, number: int) -> None:
    user = demo.user(number)
    own = int(user.removeprefix("user")) % 2  # users take turns
    home, other = (
        (demo.backends[0], demo.backends[1]) if own else (demo.backends[1], demo.backends[0])
    )
    with demo.imap(demo.frontend, "admin") as admin:
        where = f"{other['name']}!default"
        assert admin._simple_command("CREATE", f"user/{user}/far", where)[0] == "OK"
    with ManageSieve(demo.frontend["host"], demo.frontend["sieve"]) as client:
        assert client.login(user, demo.password).is_ok
        client.ask(
            'PUTSCRIPT "a"',
            b'require ["fileinto","imap4flags","copy"];\r\n'
            b'fileinto :copy :flags "\\\\Flagged" "INBOX/far";\r\n',
        )
        client.ask('SETACTIVE "a"')
    assert demo.deliver(demo.frontend, user, message("over there")).startswith("250")
    with demo.imap(demo.frontend, user) as reader:
        for folder in ("INBOX", "INBOX/far"):
            assert reader.select(folder) == ("OK", [b"1"]), (home["name"], folder)
            flags = reader.fetch("1", "(FLAGS)")[1][0]
            assert isinstance(flags, bytes) and (b"Flagged" in flags) is (folder != "INBOX")
