"""A quota is kept exactly, however many deliver and append at once, in however many workers."""

import threading
from pathlib import Path

import pytest

from tests.faults.alone import Alone, Refused, answered

LIMIT = 25
EACH = 12
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


@pytest.mark.parametrize("limit", ["MESSAGE 25", "STORAGE 25"])
def test_many_at_once_fill_a_quota_and_never_pass_it(limit: str, tmp_path: Path) -> None:
    body = MESSAGE if limit.startswith("MESSAGE") else MESSAGE + b"x" * (1024 - len(MESSAGE))
    with Alone(tmp_path, workers=2) as server:
        client = server.imap("ana")
        admin = server.imap("admin")
        answered(admin, "setquota", '"Other Users/ana"', f"({limit})")
        said: list[str] = []
        accepted = [0]
        lock = threading.Lock()

        def deliver() -> None:
            for _ in range(EACH):
                told = server.deliver("ana", body)
                with lock:
                    said.append(told)
                    accepted[0] += told.startswith("250")

        def append() -> None:
            own = server.imap("ana")
            for _ in range(EACH):
                try:
                    answered(own, "append", "INBOX", "", "", body)
                except Refused as refused:
                    assert "OVERQUOTA" in str(refused)
                    continue
                with lock:
                    accepted[0] += 1

        threads = [threading.Thread(target=work) for work in (deliver, append) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        told = answered(client, "status", "INBOX", "(MESSAGES SIZE)")[0].decode()
        messages, size = (int(word.strip("()")) for word in told.split()[2:5:2])
        assert messages == accepted[0]
        assert all(one.startswith(("250", "452")) for one in said), said
        if limit.startswith("MESSAGE"):
            assert messages == LIMIT
        else:
            assert size <= LIMIT * 1024 and messages >= LIMIT // 2
