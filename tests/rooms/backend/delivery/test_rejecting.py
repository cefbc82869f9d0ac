"""Messages that a script rejects, in words that a mail server may not be told (RFC 5429)."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from murder.roles.backend.records.deliveries import SENT
from murder.roles.backend.scripts.rejecting import IN_ASCII
from tests.kit.waiting import until_soon
from tests.rooms.backend.delivery.test_sieve_delivery import Lmtp, delivering, sending

REJECT = 'require "reject"; reject "Bitte nicht: größer als nötig";'.encode()
EREJECT = REJECT.replace(b"reject", b"ereject")
MESSAGE = b"From: a@example.org\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\nMessage-ID: <1@example.org>\r\n\r\nsecret\r\n"


async def in_utf8(client: Lmtp) -> bytes:
    await client.said(b"MAIL FROM:<sender@example.org> SMTPUTF8")
    await client.said(b"RCPT TO:<ana>")
    await client.said(b"DATA")
    return await client.said(MESSAGE + b".")


async def test_words_that_are_not_ascii_come_in_a_notification_once(tmp_path: Path) -> None:
    async with sending(tmp_path, REJECT) as (client, sink):
        for _ in range(2):  # the sender's retry
            (answer,) = await client.deliver("x", message=MESSAGE)
            assert answer.startswith(b"250 ")
        await until_soon(lambda: client.states() == [SENT], "it is sent")
        assert await client.subjects() == []
        ((sender, recipients, octets),) = sink.taken
    assert (sender, recipients) == (b"", [b"sender@example.org"])
    message = message_from_bytes(octets, policy=default)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == "Rejected: Grüße"
    assert message["Auto-Submitted"].startswith("auto-replied")
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "disposition-notification"
    text, report, header = message.iter_parts()
    for entity in (message, text, header):  # a part in 8bit is in nothing less (RFC 2045 §6.4)
        assert entity["Content-Transfer-Encoding"] == "8bit"
    assert "Bitte nicht: größer als nötig" in text.get_content()
    assert report.get_content_type() == "message/disposition-notification"
    for fact in (
        b"Disposition: automatic-action/MDN-sent-automatically; deleted",
        b"Final-Recipient: rfc822; ana",
        b"Original-Message-ID: <1@example.org>",
    ):
        assert b"\r\n" + fact + b"\r\n" in octets
    assert header.get_content_type() == "text/rfc822-headers"
    assert b"Message-ID: <1@example.org>" in octets and b"secret" not in octets


@pytest.mark.parametrize("script", [REJECT, EREJECT])
async def test_a_server_that_takes_utf8_is_told_at_once(script: bytes, tmp_path: Path) -> None:
    async with sending(tmp_path, script) as (client, sink):
        answer = await in_utf8(client)
        assert answer == "550 5.7.1 Bitte nicht: größer als nötig\r\n".encode()
        assert client.states() == [] and sink.taken == []


async def test_ereject_is_refused_in_other_words(tmp_path: Path) -> None:
    async with sending(tmp_path, EREJECT) as (client, sink):
        (answer,) = await client.deliver("x", message=MESSAGE)
        assert answer == f"550 5.7.1 {IN_ASCII}\r\n".encode()
        assert client.states() == [] and sink.taken == []


async def test_nobody_is_answered_who_has_no_address(tmp_path: Path) -> None:
    async with sending(tmp_path, REJECT) as (client, _):
        (answer,) = await client.deliver("x", message=MESSAGE, sender="")
        assert answer == f"550 5.7.1 {IN_ASCII}\r\n".encode()
        assert client.states() == []


async def test_without_a_server_that_sends_it_is_refused(tmp_path: Path) -> None:
    async with delivering(tmp_path, REJECT) as client:
        (answer,) = await client.deliver("x", message=MESSAGE)
        assert answer == f"550 5.7.1 {IN_ASCII}\r\n".encode()
