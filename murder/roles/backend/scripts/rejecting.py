"""What a script rejects is refused before it is accepted, in the script's words. Where these are not ASCII and the sender's
server has not said that it takes others (SMTPUTF8), `reject` accepts the message and answers with a notification that has
them (RFC 5429 §2.2), `ereject` refuses it in other words (§2.1.1).
"""

import hashlib
from datetime import UTC, datetime
from email.header import Header
from typing import Final

from murder import __version__
from murder.api.delivery import Arriving
from murder.errors import Refusal
from murder.roles.backend.records.deliveries import Mail, key_of
from murder.roles.backend.scripts.run import whose
from murder.roles.backend.shared import Backend
from murder.sieve import Outcome, Reject
from murder.sieve.run.compose import format_lines, format_message
from murder.sieve.run.message import Message
from murder.sieve.run.words import format_date

IN_ASCII: Final = "The recipient's mail filter refuses this message"
MAX_HEADER: Final = 64 * 1024  # octets of the message's own header that go back
MAX_SUBJECT: Final = 200  # characters
BEFORE: Final = """\
The message was refused by the recipient's mail filtering program.
The reason given was as follows:

"""


class Rejected(Refusal):
    """A script, or a plugin's filter, says so; the sender is told its text."""


def rejection_of(outcome: Outcome) -> Reject | None:
    """Where the message is refused."""
    return next((action for action in outcome.actions if isinstance(action, Reject)), None)


def in_ascii(text: str) -> str:
    """What a server is told that takes nothing else."""
    return text if text.isascii() else IN_ASCII


def notification_of(
    backend: Backend, arriving: Arriving, rejection: Reject, outcome: Outcome
) -> Mail | None:
    """The mail by which the sender hears of it; None where the message is to be refused: also where there is nobody to
    answer, or no way (`[backend.submission]`)."""
    sender = arriving.sender.decode("utf-8", "surrogateescape")
    if rejection.ereject or rejection.text.isascii() or not sender or not backend.sends_mail:
        return None
    user = arriving.user or ""
    recipient = arriving.recipient.decode("utf-8", "surrogateescape")
    octets = _composed(backend.server_name, sender, recipient, rejection.text, outcome)
    key = key_of("mail", user, outcome.key, rejection.key, recipient)
    return Mail(key, user, "", (sender,), octets, whose=whose(arriving))


def _typed(address: str) -> str:
    """As a report names it; where it is not ASCII, in the form for a report that is (RFC 6533 §3)."""
    if address.isascii():
        return f"rfc822; {address}"
    plain = "".join(
        letter if "!" <= letter <= "~" and letter not in "\\+=" else f"\\x{{{ord(letter):02X}}}"
        for letter in address
    )
    return f"utf-8; {plain}"


def _mailbox(address: str) -> str:
    """For a header in ASCII; what is not is the name of a group of nobody (RFC 6857 §3.1.8), for no encoded word is an
    address."""
    if address.isascii():
        return f"<{address}>"
    name = address.encode("utf-8", "replace").decode()
    return f"{Header(name, 'utf-8').encode(linesep=' ')} :;"


def _composed(host: str, sender: str, recipient: str, text: str, outcome: Outcome) -> bytes:
    """RFC 5429 §2.2.1, RFC 8098 §3: the message as it came, whatever the script has made of it; of that the header."""
    original = bytes(outcome.messages[0].pieces[0][:MAX_HEADER])
    message = Message(original)
    for _ in message.read():
        pass
    subject = next((field.text for field in message.named("subject")), "")[:MAX_SUBJECT]
    ids = [field.text.strip() for field in message.named("message-id")][:1]
    digest = hashlib.sha256("\0".join((outcome.key, sender, recipient)).encode("utf-8", "replace"))
    boundary = f"={digest.hexdigest()[:40]}"
    report = [
        ("Reporting-UA", f"{host}; murder {__version__}"),
        ("Final-Recipient", _typed(recipient)),
        *[("Original-Message-ID", message_id) for message_id in ids],
        ("Disposition", "automatic-action/MDN-sent-automatically; deleted"),
    ]
    # also of what such a part is in (RFC 2045 §6.4)
    in_8bit = ("Content-Transfer-Encoding", "8bit")
    fields = [
        ("Message-ID", f"<reject-{digest.hexdigest()[:32]}@{host}>"),
        ("Date", format_date(datetime.now(UTC))),
        ("From", _mailbox(recipient)),
        ("To", _mailbox(sender)),
        ("Subject", f"Rejected: {subject}" if subject else "Rejected message"),
        *[("In-Reply-To", message_id) for message_id in ids],
        ("Auto-Submitted", "auto-replied (rejected)"),
        ("MIME-Version", "1.0"),
        in_8bit,
        (
            "Content-Type",
            f'multipart/report; report-type=disposition-notification; boundary="{boundary}"',
        ),
    ]
    utf8 = [("Content-Type", "text/plain; charset=utf-8"), in_8bit]
    of_headers = [("Content-Type", "text/rfc822-headers"), in_8bit]
    head = original.replace(b"\r\n", b"\n").partition(b"\n\n")[0] + b"\n"
    parts = (
        format_message(utf8, format_lines(BEFORE + text)),
        format_message(
            [("Content-Type", "message/disposition-notification")], format_message(report, b"")
        ),
        format_message(of_headers, head.replace(b"\n", b"\r\n")),
    )
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
    return format_message(fields, body + line + b"--\r\n")
