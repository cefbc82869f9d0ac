"""`murder ctl store`: what it says, and its exit codes."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from murder.api import NewMessage
from murder.model.name import MailboxName
from murder.roles.backend.records.deliveries import FILE, Deliveries
from plugins.store_spool.store import Settings, SpoolStore

ROOT = Path(__file__).parent.parent.parent.parent
CONFIG = '[node]\nname = "be1.test"\ndata = "{data}"\nroles = ["backend"]\n'


def murder(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "murder", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


async def fill(folder: Path) -> None:
    store = SpoolStore(Settings(inline_bytes=10), folder)
    await store.start()
    await store.create(MailboxName(b"user.ana"), "default")
    inbox = await store.open(MailboxName(b"user.ana"), "ana")
    incoming = store.incoming()
    await incoming.write(b"Subject: hello\r\n\r\nIt works.\r\n")
    await inbox.append([NewMessage(incoming)])
    await incoming.close()
    await store.stop()


def test_store_check_and_repair(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "spool"))
    config = tmp_path / "murder.toml"
    config.write_text(CONFIG.format(data=tmp_path), encoding="utf-8")
    clean = murder("ctl", "store", "check", "--config", str(config))
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "0 faults\n")
    (file,) = (tmp_path / "spool" / "roots").glob("*/*/files/*/*")
    file.unlink()
    broken = murder("ctl", "store", "check", "--config", str(config))
    assert broken.returncode == 1
    assert "user.ana: message 1 (29 octets) has lost its file" in broken.stdout
    mended = murder("ctl", "store", "repair", "--config", str(config), "--json")
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["found"]
    assert murder("ctl", "store", "check", "--config", str(config)).returncode == 0


def test_a_folder_that_was_put_back_is_renewed(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "spool"))
    config = tmp_path / "murder.toml"
    config.write_text(CONFIG.format(data=tmp_path), encoding="utf-8")

    async def told() -> tuple[str, int, int]:
        store = SpoolStore(Settings(), tmp_path / "spool")
        await store.start()
        inbox = await store.open(MailboxName(b"user.ana"), "ana")
        status = await inbox.status()
        found = inbox.mailbox_id, status.uid_validity, status.messages
        inbox.close()
        await store.stop()
        return found

    async def note_a_delivery() -> None:
        deliveries = Deliveries(tmp_path / "backend" / "deliveries")
        await deliveries.begin(b"key", {"user.ana": 1})
        deliveries.close()

    asyncio.run(note_a_delivery())
    before = asyncio.run(told())
    done = murder("ctl", "store", "renew", "user/ana", "--config", str(config), "--json")
    assert json.loads(done.stdout) == {"renewed": 1}, done.stderr
    after = asyncio.run(told())
    assert after[0] != before[0] and after[1] > before[1] and after[2] == 1
    with closing(sqlite3.connect(tmp_path / "backend" / "deliveries" / FILE)) as db:
        assert db.execute("SELECT count(*) FROM begun").fetchone() == (0,)
    missing = murder("ctl", "store", "renew", "user/nobody", "--config", str(config))
    assert missing.returncode == 1 and "user/nobody" in missing.stderr.replace(".", "/")
    assert not list((tmp_path / "spool" / "roots").glob("*/*nobody*"))
