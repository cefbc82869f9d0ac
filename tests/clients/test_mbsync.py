"""mbsync: a two-way sync of a mailbox with 10,000 messages, twice; the second time there is nothing to do."""

import imaplib
import subprocess
import time
from pathlib import Path

import pytest

from tests.kit.demo import Demo, message, wanted

pytestmark = pytest.mark.skipif(bool(wanted("mbsync")), reason=wanted("mbsync"))

EACH = 5000


def configuration(demo: Demo, server: dict[str, object], user: str, folder: Path) -> Path:
    file = folder / "mbsyncrc"
    # its own flushes to disk are not what is tried here
    file.write_text(f"""
FSync no

IMAPAccount murder
Host {server["host"]}
Port {server["imap"]}
User {user}
Pass {demo.password}
SSLType None
Timeout 120

IMAPStore far
Account murder

MaildirStore near
Path {folder}/mail/
Inbox {folder}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Both
Expunge Both
SyncState *
CopyArrivalDate yes
""")
    return file


def sync(file: Path) -> str:
    done = subprocess.run(
        ["mbsync", "-c", str(file), "-V", "-a"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def append_all(client: imaplib.IMAP4, messages: list[tuple[str, bytes]]) -> None:
    """Into INBOX, a hundred in one burst."""
    for first in range(0, len(messages), 100):
        burst = messages[first : first + 100]
        client.send(
            b"".join(
                b"m%d APPEND INBOX %s {%d+}\r\n%s\r\n" % (n, flags.encode(), len(octets), octets)
                for n, (flags, octets) in enumerate(burst)
            )
        )
        done = 0
        while done < len(burst):
            line = client.readline()
            assert line.startswith((b"m%d OK" % done, b"* ")), line
            done += line.startswith(b"m")


def test_ten_thousand_messages_both_ways_and_then_nothing_to_do(
    demo: Demo, number: int, kind: str, tmp_path: Path
) -> None:
    server, user = demo.server(kind, number), demo.user(number)
    client = demo.imap(server, user)
    append_all(
        client,
        [
            (r"(\Seen)" if position % 2 else "()", message(f"far {position}"))
            for position in range(EACH)
        ],
    )
    box = tmp_path / "mail" / "INBOX"
    for part in ("new", "cur", "tmp"):
        (box / part).mkdir(parents=True)
    for position in range(EACH):
        name = f"{int(time.time())}.{position}.host:2,{'F' if position % 5 == 0 else ''}"
        (box / "cur" / name).write_bytes(message(f"near {position}").replace(b"\r\n", b"\n"))
    file = configuration(demo, server, user, tmp_path)
    sync(file)
    assert sum(1 for part in ("new", "cur") for _ in (box / part).iterdir()) == 2 * EACH
    assert client.select("INBOX")[1] == [str(2 * EACH).encode()]
    assert len(client.search(None, "FLAGGED")[1][0].split()) == EACH // 5
    assert len(client.search(None, "SEEN")[1][0].split()) == EACH // 2
    again = sync(file)
    assert "new message(s)" not in again.replace("0 new message(s)", ""), again
    client.store("1:10", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.store("1", "+FLAGS", r"(\Answered)")
    sync(file)
    assert sum(1 for part in ("new", "cur") for _ in (box / part).iterdir()) == 2 * EACH - 10
    assert sum("R" in name.name.rpartition(",")[2] for name in (box / "cur").iterdir()) == 1
    client.logout()
