"""What arrives goes where a plugin's filter says, and no mail is lost for its sake: a file in a folder, and its name."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from murder.api.delivery import DeliveryFilter
from murder.config import load_config
from murder.hooks import load_plugins
from murder.roles.backend.delivery import filtering
from tests.kit.peer import Peer
from tests.rooms.backend.delivery.test_lmtp_options import all_ports
from tests.rooms.backend.server import Parts, Running, config_in, running_backend, spool_store

HERE = Path(__file__).parent


class WithFilters(Parts):
    """The parts of a backend with the site's filters."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda: spool_store(folder))
        (folder / "site").mkdir()
        shutil.copy(HERE / "delivery_toy.py", folder / "site")
        file = folder / "site.toml"
        file.write_text(
            '[node]\nname = "be1.test"\ndata = "data"\n'
            '[plugins]\npath = ["site"]\nuse = ["delivery_toy"]\n'
        )
        self.plugins = load_plugins(load_config(file), ["backend"])

    def delivery_filters(self) -> Sequence[tuple[str, DeliveryFilter]]:
        return self.plugins.delivery_filters()


async def delivered(port: int, subject: str, *users: str) -> list[bytes]:
    """The replies behind the message."""
    peer = await Peer.at(port)
    await peer.line()
    envelope = "".join(f"RCPT TO:<{user}>\r\n" for user in users)
    peer.send(f"LHLO x\r\nMAIL FROM:<s@x>\r\n{envelope}DATA\r\n".encode())
    await peer.until(b"354")
    peer.send(f"Message-ID: <{subject}@x>\r\nSubject: {subject}\r\n\r\nbody\r\n.\r\n".encode())
    lines = [await peer.line()]
    while len([line for line in lines if line[3:4] == b" "]) < len(users):
        lines.append(await peer.line())
    await peer.close()
    return lines


async def flags_in(running: Running, mailbox: str, user: str = "ana") -> list[bytes]:
    """Of the messages that are there, each with its flags; none where the mailbox is not."""
    peer = await Peer.at(running.address[1])
    await peer.line()
    await peer.ok(f"LOGIN {user} secret")
    if not (await peer.command(f'EXAMINE "{mailbox}"'))[-1].startswith(b"t OK"):
        return []
    found = await peer.ok("UID FETCH 1:* FLAGS")
    await peer.close()
    flags = [line.partition(b"FLAGS (")[2][:-2].split() for line in found if b"FETCH" in line]
    return [b" ".join(word for word in words if word != b"\\Recent") for words in flags]


async def told(
    folder: Path,
    *subjects: str,
    users: Sequence[str] = ("ana",),
    look: Sequence[str] = (),
    **backend: Any,
) -> tuple[list[list[bytes]], dict[str, list[bytes]]]:
    """Replies to each subject, and then what is in each mailbox."""
    parts = WithFilters(folder)
    async with (
        running_backend(folder, config=config_in(folder, **backend), parts=parts) as running,
        all_ports(running) as ports,
    ):
        peer = await Peer.at(running.address[1])
        await peer.line()
        await peer.ok("LOGIN ana secret")
        await peer.ok("CREATE INBOX/Lists")
        replies = [await delivered(ports.lmtp, subject, *users) for subject in subjects]
        return replies, {name: await flags_in(running, name) for name in ("INBOX", *look)}


async def test_a_message_is_kept_filed_made_room_for_or_dropped(tmp_path: Path) -> None:
    look = ["INBOX/Lists", "INBOX/Gr&APwA3w-e/new"]
    replies, found = await told(
        tmp_path, "hello", "who", "keep", "file", "make", "both", "discard", look=look
    )
    assert {line[:9] for one in replies for line in one} == {b"250 2.1.5"}
    assert found["INBOX"] == [b"", b"known", b"\\Flagged $Label", b""]
    assert found["INBOX/Lists"] == [b"\\Seen", b"x"]
    assert found[look[1]] == [b""]


async def test_what_is_rejected_is_nowhere_and_the_sender_knows(tmp_path: Path) -> None:
    replies, found = await told(tmp_path, "reject")
    assert replies == [[b"550-5.7.1 No.", b"550 5.7.1 Not from you?."]]
    assert not found["INBOX"]


async def test_what_cannot_be_filed_is_kept(tmp_path: Path) -> None:
    replies, found = await told(tmp_path, "alien")
    assert replies[0][0].startswith(b"250")
    assert found["INBOX"] == [b""]


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        *((word, b"451 4.3.0 A filter") for word in ("crash", "away", "nothing", "wrong")),
        *((word, b"451 4.3.0 A filter") for word in ("flags", "contradiction", "redirect")),
        ("refuse", b"452 4.3.1 Enough of you"),
    ],
)
async def test_a_filter_that_fails_has_the_sender_try_again(
    tmp_path: Path, subject: str, code: bytes
) -> None:
    replies, found = await told(tmp_path, subject)
    assert replies[0][0].startswith(code)
    assert not found["INBOX"]


async def test_one_that_takes_too_long_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtering, "DECIDE_S", 0.05)
    replies, _ = await told(tmp_path, "slow")
    assert replies[0][0].startswith(b"451 4.3.0 A filter")


async def test_one_recipients_filter_is_not_the_others(tmp_path: Path) -> None:
    replies, found = await told(tmp_path, "file", users=["ana", "bob"], look=["INBOX/Lists"])
    assert [line[:3] for line in replies[0]] == [b"250", b"250"]
    assert found["INBOX/Lists"] == [b"\\Seen"]
    assert not found["INBOX"]  # ana's; bob has no such mailbox, and has it in their INBOX


async def test_a_message_that_is_tried_again_is_filed_once(tmp_path: Path) -> None:
    _, found = await told(tmp_path, "both", "both", look=["INBOX/Lists"], suppress_duplicates_s=60)
    assert (len(found["INBOX"]), len(found["INBOX/Lists"])) == (1, 1)
