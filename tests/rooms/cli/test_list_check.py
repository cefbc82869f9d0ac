"""`murder ctl list check` at a backend that has more mailboxes than an answer that is collected may have octets."""

from collections.abc import Callable
from pathlib import Path

from murder.admin.operate.lists import names_at
from murder.admin.operate.reach import Reach
from murder.config import load_config
from murder.model.name import MailboxName
from murder.net.outgoing.exchange import MAX_COLLECTED, Reply

MAILBOXES = 60_000


class Told(Reach):
    """A backend's answer, as a connection hands it over."""

    async def execute(
        self,
        server: str,
        command: bytes,
        *,
        user: str = "",
        untagged: Callable[[bytes], None] | None = None,
    ) -> Reply:
        assert untagged is not None, "what is collected is bounded"
        octets = 0
        for number in range(MAILBOXES):
            name = b"user/u%d/%b" % (number, b"x" * 40)
            line = b'* LIST (\\HasNoChildren) "/" %b\r\n' % name
            octets += len(line)
            untagged(line)
        untagged(b'* LIST (\\NonExistent \\HasChildren) "/" user\r\n')
        untagged(b"* OK a remark\r\n")
        assert octets > MAX_COLLECTED
        return Reply(b"OK", b"", "Completed", b"a OK Completed\r\n")


async def test_all_of_them_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "murder.toml"
    file.write_text(f'[node]\nname = "op"\ndata = "{tmp_path}"\n')
    found = await names_at(Told(load_config(file), lambda _: ""), "be1.test")
    assert len(found) == MAILBOXES
    assert MailboxName(b"user.u7." + b"x" * 40) in found
