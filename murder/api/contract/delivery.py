"""Delivery filters: whatever a message looks like, an answer that can be carried out, the same each time, without a stop."""

from collections.abc import Callable, Sequence
from typing import Final

from murder.api.contract.check import Check, expect, hold, let_loop_turn
from murder.api.delivery import (
    Action,
    Arriving,
    DeliveryFilter,
    Discard,
    FileInto,
    Keep,
    Redirect,
    Reject,
)
from murder.errors import Refusal
from murder.model.name import MailboxName

Make = Callable[[], DeliveryFilter]

PLAIN: Final = b"From: <a@example.org>\r\nSubject: hello\r\n\r\nbody\r\n"
ODD: Final = (
    *(PLAIN, b"", b"\r\n", b"no header at all", b"\r\n\r\n\r\n", b"Subject: \xff\xfe\r\n\r\n\0"),
    *(b": \r\n\r\nx", b"Subject:" + b" x" * 100_000 + b"\r\n\r\n", b"X: y\r\n" * 20_000 + b"\r\n"),
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n" * 5_000,
)


def arriving(octets: bytes = PLAIN, sender: bytes = b"a@example.org") -> Arriving:
    mailbox = MailboxName(b"user.anna")
    return Arriving(sender, b"anna@example.org", mailbox, "anna", memoryview(octets))


async def answers_actions(make: Make) -> None:
    """To every message it answers None, or one action at least; a refusal is the only one."""
    judge = make()
    for octets in ODD:
        for sender in (b"", b"a@example.org", b"\xff@" + b"x" * 500):
            answer = await _asked(judge, arriving(octets, sender))
            if answer is None:
                continue
            case = f"{octets[:20]!r}: {answer!r}"
            hold(len(answer) > 0, f"{case}: say Discard() where nothing is to be done")
            for action in answer:
                hold(isinstance(action, Keep | FileInto | Discard | Reject | Redirect), case)
            rejects = any(isinstance(action, Reject) for action in answer)
            hold(not rejects or len(answer) == 1, case)


async def _asked(judge: DeliveryFilter, message: Arriving) -> Sequence[Action] | None:
    try:
        return await judge.decide(message)
    except Refusal:
        return None


async def takes_mail_for_nobody(make: Make) -> None:
    """A mailbox that is nobody's is no error."""
    message = Arriving(b"a@x", b"+news@x", MailboxName(b"news"), None, memoryview(PLAIN))
    await _asked(make(), message)


async def answers_the_same_in_another_process(make: Make) -> None:
    """Another process answers the same."""
    expect(
        await _asked(make(), arriving()), await _asked(make(), arriving()), "the same message again"
    )


async def leaves_the_loop_turning(make: Make) -> None:
    """While it decides, the event loop turns: a long message does not block other sessions."""
    judge = make()
    await let_loop_turn(_asked(judge, arriving(octets)) for octets in ODD)


DELIVERY_CHECKS: Final[tuple[Check, ...]] = (
    answers_actions,
    takes_mail_for_nobody,
    answers_the_same_in_another_process,
    leaves_the_loop_turning,
)
