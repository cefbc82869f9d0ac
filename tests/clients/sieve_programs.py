"""Programs with which people keep their scripts, driven through what they do: sieve-connect, Cyrus' sieveshell, and the
libraries sievelib and managesieve. Each puts a script, has a bad one refused, activates, lists, gets and deletes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import cannot_run
from tests.cyrus.conftest import ROOT as CYRUS
from tests.kit.demo import wanted

SCRIPT: Final = 'require "fileinto";\nif header :contains "subject" "x" { fileinto "INBOX/x"; }\n'
BAD: Final = 'require "fileinto";\nif hader :contains "subject" "x" { keep; }\n'
SIEVESHELL: Final = CYRUS / "pkg/usr/lib/cyrus/bin/sieveshell"


@dataclass(frozen=True)
class Where:
    """A server and somebody there. Without `ca` it is spoken to without TLS."""

    host: str
    port: int
    user: str
    password: str
    folder: Path  # for files
    ca: str = ""


def _run(words: list[str], said: str = "", **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        words,
        input=said,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def sieve_connect(at: Where) -> None:
    """Debian's sieve-connect."""
    if reason := wanted("sieve-connect"):
        cannot_run(reason)
    file, bad = at.folder / "main.sieve", at.folder / "bad.sieve"
    file.write_text(SCRIPT)
    bad.write_text(BAD)
    server = ["sieve-connect", "--server", at.host, "--port", str(at.port), "--user", at.user]
    tls = ["--tlscafile", at.ca] if at.ca else ["--clearchan"]

    def run(*words: str) -> tuple[int, str]:
        return _run([*server, *tls, "--passwordfd", "0", *words], at.password + "\n")

    def fine(*words: str) -> str:
        code, said = run(*words)
        assert code == 0, said
        return said

    fine("--upload", "--localsieve", str(file), "--remotesieve", "main")
    code, said = run("--upload", "--localsieve", str(bad), "--remotesieve", "bad")
    assert code != 0 and "line 2" in said, said
    fine("--activate", "--remotesieve", "main")
    assert '"main" ACTIVE' in fine("--list")
    again = at.folder / "again.sieve"
    fine("--download", "--remotesieve", "main", "--localsieve", str(again))
    assert again.read_text() == SCRIPT
    fine("--deactivate")
    fine("--delete", "--remotesieve", "main")
    assert "main" not in fine("--list")


_SIEVELIB: Final = """
import sys
from sievelib.managesieve import Client
host, port, user, password, script, bad, tls = sys.argv[1:]
client = Client(host, int(port))
assert client.connect(user, password, starttls=bool(tls), authmech="PLAIN"), client.errmsg
assert "fileinto" in client.get_sieve_capabilities()
assert client.havespace("a", 100) and client.putscript("a", script), client.errmsg
assert not client.putscript("bad", bad) and b"line 2" in client.errmsg, client.errmsg
assert client.setactive("a") and client.listscripts() == ("a", []), client.listscripts()
assert client.getscript("a").replace("\\r", "") .strip() == script.strip()
assert not client.deletescript("a")
assert client.renamescript("a", "b") and client.setactive("") and client.deletescript("b")
client.logout()
"""
_MANAGESIEVE: Final = """
import sys
from managesieve import MANAGESIEVE
host, port, user, password, script, bad, tls = sys.argv[1:]
client = MANAGESIEVE(host, int(port))
if tls:
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


def _library(program: str, at: Where) -> None:
    where = [at.host, str(at.port), at.user, at.password, SCRIPT, BAD, at.ca]
    code, said = _run([sys.executable, "-c", program, *where], **_trusting(at))
    assert code == 0, said


def _trusting(at: Where) -> dict[str, str]:
    return {"SSL_CERT_FILE": at.ca} if at.ca else {}


def sievelib(at: Where) -> None:
    """Python's sievelib."""
    _library(_SIEVELIB, at)


def managesieve(at: Where) -> None:
    """Python's managesieve."""
    _library(_MANAGESIEVE, at)


def sieveshell(at: Where) -> None:
    """Cyrus' own."""
    if not SIEVESHELL.exists():
        cannot_run(f"{SIEVESHELL} is missing: tests/cyrus/lab.sh install")
    file, commands = at.folder / "main.sieve", at.folder / "commands"
    file.write_text(SCRIPT)
    commands.write_text(
        f"put {file} main\nactivate main\nlist\nget main\ndeactivate\ndelete main\nlist\nquit\n"
    )
    perl = next((CYRUS / "pkg/usr/lib").glob("*-linux-gnu/perl5/*"))
    who = ["-u", at.user, "-a", at.user, "-p", at.password, "-f", str(commands)]
    includes = [f"-I{perl}", f"-I{CYRUS}/pkg/usr/share/perl5"]
    code, said = _run(
        ["perl", "-x", *includes, str(SIEVESHELL), *who, f"{at.host}:{at.port}"],
        LD_LIBRARY_PATH=str(perl.parent.parent),
    )
    assert code == 0 and "main  <- active script" in said and "fileinto" in said, said


PROGRAMS: Final[Mapping[str, Callable[[Where], None]]] = {
    "sieve-connect": sieve_connect,
    "sievelib": sievelib,
    "managesieve": managesieve,
    "sieveshell": sieveshell,
}
