"""sieve-connect, sievelib, managesieve and Cyrus' sieveshell keep scripts, at a backend and through a frontend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cyrus.conftest import ROOT as CYRUS
from tests.kit.demo import Demo, message, wanted
from tests.kit.managesieve import ManageSieve

SCRIPT = 'require "fileinto";\nif header :contains "subject" "x" { fileinto "INBOX/x"; }\n'
BAD = 'require "fileinto";\nif hader :contains "subject" "x" { keep; }\n'
SIEVESHELL = CYRUS / "pkg/usr/lib/cyrus/bin/sieveshell"


@pytest.mark.skipif(bool(wanted("sieve-connect")), reason=wanted("sieve-connect"))
def test_sieve_connect(demo: Demo, number: int, kind: str, tmp_path: Path) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    file, bad = tmp_path / "main.sieve", tmp_path / "bad.sieve"
    file.write_text(SCRIPT)
    bad.write_text(BAD)

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                *("sieve-connect", "--server", "localhost", "--port", str(server["sieve"])),
                *("--user", user, "--passwordfd", "0", "--tlscafile", str(demo.info["ca"])),
                *words,
            ],
            input=demo.password + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def fine(*words: str) -> str:
        code, said = run(*words)
        assert code == 0, said
        return said

    fine("--upload", "--localsieve", str(file), "--remotesieve", "main")
    code, said = run("--upload", "--localsieve", str(bad), "--remotesieve", "bad")
    assert code != 0 and "line 2" in said
    fine("--activate", "--remotesieve", "main")
    assert '"main" ACTIVE' in fine("--list")
    again = tmp_path / "again.sieve"
    fine("--download", "--remotesieve", "main", "--localsieve", str(again))
    assert again.read_text() == SCRIPT
    fine("--deactivate")
    fine("--delete", "--remotesieve", "main")
    assert "main" not in fine("--list")


SIEVELIB = """
import sys
from sievelib.managesieve import Client
host, port, user, password, script, bad = sys.argv[1:]
client = Client(host, int(port))
assert client.connect(user, password, starttls=True, authmech="PLAIN"), client.errmsg
assert "fileinto" in client.get_sieve_capabilities()
assert client.havespace("a", 100) and client.putscript("a", script), client.errmsg
assert not client.putscript("bad", bad) and b"line 2" in client.errmsg, client.errmsg
assert client.setactive("a") and client.listscripts() == ("a", []), client.listscripts()
assert client.getscript("a").replace("\\r", "") .strip() == script.strip()
assert not client.deletescript("a")
assert client.renamescript("a", "b") and client.setactive("") and client.deletescript("b")
client.logout()
"""
MANAGESIEVE = """
import sys
from managesieve import MANAGESIEVE
host, port, user, password, script, bad = sys.argv[1:]
client = MANAGESIEVE(host, int(port))
client.starttls()
assert client.login("", user, password) == "OK"
assert client.putscript("a", script) == "OK"
assert client.putscript("bad", bad) == "NO"
assert client.setactive("a") == "OK"
assert client.listscripts() == ("OK", [("a", True)]), client.listscripts()
assert client.getscript("a")[1].strip() == script.strip()
assert client.setactive("") == "OK" and client.deletescript("a") == "OK"
client.logout()
"""


@pytest.mark.parametrize("program", [SIEVELIB, MANAGESIEVE], ids=["sievelib", "managesieve"])
def test_libraries_of_python(program: str, demo: Demo, number: int, kind: str) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    where = ("localhost", str(server["sieve"]), user, demo.password)
    done = subprocess.run(
        [sys.executable, "-c", program, *where, SCRIPT, BAD],
        env=os.environ | {"SSL_CERT_FILE": str(demo.info["ca"])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    not SIEVESHELL.exists() and os.environ.get("CI") != "true",
    reason=f"{SIEVESHELL} is missing: tests/cyrus/lab.sh install",
)
def test_sieveshell_of_cyrus(demo: Demo, number: int, kind: str, tmp_path: Path) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    file = tmp_path / "main.sieve"
    file.write_text(SCRIPT)
    commands = tmp_path / "commands"
    commands.write_text(
        f"put {file} main\nactivate main\nlist\nget main\ndeactivate\ndelete main\nlist\nquit\n"
    )
    perl = next((CYRUS / "pkg/usr/lib").glob("*-linux-gnu/perl5/*"))
    done = subprocess.run(
        [
            *("perl", "-x", f"-I{perl}", f"-I{CYRUS}/pkg/usr/share/perl5", str(SIEVESHELL)),
            *(
                "-u",
                user,
                "-a",
                user,
                "-p",
                demo.password,
                "-f",
                str(commands),
                f"localhost:{server['sieve']}",
            ),
        ],
        env=os.environ | {"LD_LIBRARY_PATH": str(perl.parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "main  <- active script" in said and "fileinto" in said, said


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
