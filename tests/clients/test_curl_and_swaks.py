"""curl (imap, imaps, pop3, pop3s) and swaks --protocol LMTP against a frontend and a backend."""

import subprocess
from pathlib import Path

import pytest

from tests.kit.demo import Demo, message, wanted

pytestmark = pytest.mark.skipif(bool(wanted("curl", "swaks")), reason=wanted("curl", "swaks"))


def curl(*words: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", *words], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_swaks_delivers_and_curl_reads_by_all_four_protocols(
    demo: Demo, number: int, kind: str
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    login = ("--user", f"{user}:{demo.password}", "--cacert", str(demo.info["ca"]))
    said = subprocess.run(
        [
            *("swaks", "--protocol", "LMTP", "--server", str(server["host"])),
            *("--port", str(server["lmtp"]), "--to", f"{user}@example.org"),
            *("--from", "sender@example.org", "--header", "Subject: from swaks"),
            *("--body", "a line\n.a dot\n"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    host = server["host"]
    for url in (
        f"imap://{host}:{server['imap']}/INBOX;MAILINDEX=1",
        f"imaps://{host}:{server['imaps']}/INBOX;MAILINDEX=1",
        f"pop3://{host}:{server['pop3']}/1",
        f"pop3s://{host}:{server['pop3s']}/1",
    ):
        got = curl(*login, url)
        assert "Subject: from swaks" in got, url
        assert "\n.a dot" in got.replace("\r\n", "\n"), url
    assert "Subject: from swaks" in curl(
        *login, "--ssl-reqd", f"imap://{host}:{server['imap']}/INBOX;MAILINDEX=1"
    )
    assert "Subject: from swaks" in curl(*login, "--ssl-reqd", f"pop3://{host}:{server['pop3']}/1")


def test_curl_appends_lists_and_searches(
    demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    login = ("--user", f"{user}:{demo.password}")
    base = f"imap://{server['host']}:{server['imap']}"
    file = tmp_path / "message"
    file.write_bytes(message("uploaded"))
    curl(*login, base, "-X", "CREATE INBOX/Archive")
    curl(*login, "-T", str(file), f"{base}/INBOX%2FArchive")
    listed = curl(*login, base)
    assert '"/" INBOX' in listed
    assert "INBOX/Archive" in listed
    assert curl(*login, f"{base}/INBOX%2FArchive?SUBJECT%20uploaded").strip() == "* SEARCH 1"
