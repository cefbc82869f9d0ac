"""What becomes of a message for one of its recipients: plugins are asked, else scripts run, else it is kept; and what the
sender is told. To be read from the top."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from murder.api.delivery import Arriving
from murder.api.store import NewMessage
from murder.errors import Code, Refusal
from murder.roles.backend.delivery.addressee import Addressee
from murder.roles.backend.delivery.copies import Copies, Copy
from murder.roles.backend.delivery.filtering import decided_by_plugins
from murder.roles.backend.scripts.arriving import run_and_carry_out
from murder.roles.backend.scripts.rejecting import Rejected, in_ascii
from murder.roles.backend.scripts.run import scripts_for
from murder.roles.backend.shared import Backend
from murder.serve.lmtp import LmtpDialogue
from murder.serve.lmtp_replies import shown_reply
from murder.serve.mail_log import Handled, facts_of
from murder.serve.watched import traced
from murder.wire.lmtp import format_saved, reply

MAX_REJECT_LINES: Final = 20  # of a filter's text


async def deliver(
    dialogue: LmtpDialogue, backend: Backend, addressee: Addressee, message: NewMessage
) -> bytes:
    """Deliver to one recipient: the reply, which the mail log has, too. Durable when it is said."""
    mail_log = dialogue.mail_log
    copies = Copies(backend, message.incoming, dialogue.log, is_traced=mail_log.is_full)
    attempt = _attempt(dialogue, backend, addressee, message, copies)
    service, session = dialogue.service, dialogue.session_told
    if session:
        attempt = traced(service.spans, session, "LMTP delivery", attempt)
    answer = await attempt
    filtered = {"filtered": list(copies.filtered)} if copies.filtered else {}
    if answer.startswith(b"2"):
        service.figures.add("messages", "delivered")
        handled, kept = dialogue.handled(addressee.address), copies.kept
        mail_log.info("message.delivered", partial(_delivered, handled, filtered, kept, answer))
    else:
        dialogue.note_refused(addressee.address, answer, filtered)
    return answer


def _delivered(
    handled: Handled, filtered: Mapping[str, object], kept: Sequence[Copy], answer: bytes
) -> dict[str, object]:
    """For the mail log; nothing of `kept` changes behind the answer."""
    copies = [copy.shown() for copy in kept]
    return {**facts_of(handled), **filtered, "copies": copies, "reply": shown_reply(answer)}


async def _attempt(
    dialogue: LmtpDialogue,
    backend: Backend,
    addressee: Addressee,
    message: NewMessage,
    copies: Copies,
) -> bytes:
    """The reply, whatever went wrong."""
    try:
        await _place(dialogue, backend, addressee, message, copies)
    except Rejected as refusal:
        copies.filtered = copies.filtered or ("reject",)
        text = refusal.text if dialogue.tells_utf8 else in_ascii(refusal.text)
        lines = text.splitlines()[:MAX_REJECT_LINES]
        return reply(550, "5.7.1", *lines or ["Rejected"])
    except Refusal as refusal:
        if refusal.code is Code.NONEXISTENT:  # it was there at RCPT: moved or renamed since
            return reply(451, "4.2.0", "The mailbox has just gone, try again later")
        return dialogue.reply_for(refusal)
    except Exception as error:  # noqa: BLE001 - one recipient's trouble is not the others'
        return dialogue.reply_for(error)
    return reply(250, "2.1.5", format_saved(dialogue.message_id))


async def _place(
    dialogue: LmtpDialogue,
    backend: Backend,
    addressee: Addressee,
    message: NewMessage,
    copies: Copies,
) -> None:
    """What plugins decide, else the scripts; where nobody does it is kept. Raises Refusal, and so Rejected;
    UpstreamFailure."""
    envelope = dialogue.envelope
    assert envelope is not None
    arriving = Arriving(
        envelope.path,
        addressee.address,
        addressee.mailbox,
        addressee.owner,
        message.incoming.octets(),
        dialogue.connection.cid,
        dialogue.peer_address,
    )
    if backend.filters:
        decided = await decided_by_plugins(backend, arriving, dialogue.log)
        if decided is not None:
            copies.filtered = decided.words
            for target in decided.targets:
                await copies.add(target.mailbox, replace(message, flags=target.flags))
            return
    scripts = await scripts_for(backend, arriving)
    if scripts:
        await run_and_carry_out(dialogue, backend, arriving, scripts, message, copies)
    else:
        await copies.add(addressee.mailbox, message)
