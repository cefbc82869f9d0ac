"""Replies while somebody is away: RFC 5230, RFC 6131 (`:seconds`)."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Once, Reply
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Suspended, Tag, Takes, Word
from murder.sieve.check.templates import source_of
from murder.sieve.language.fields import LARGE_OCTETS, aside
from murder.sieve.language.sending import check_from, copy_of, from_of, is_automatic
from murder.sieve.problem import RunProblem
from murder.sieve.questions import OwnAddresses
from murder.sieve.run.addresses import Address, parse_address, parse_path
from murder.sieve.run.compose import (
    common_fields,
    format_address,
    format_lines,
    format_message,
    shortened,
    threading_fields,
)
from murder.sieve.run.machine import Machine
from murder.sieve.run.senders import envelope_sender

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

DAY_S: Final = 86_400
MANY_ADDRESSES: Final = 200  # own ones: each is compared with those of the message
ADDRESS_STEPS: Final = 10  # to read one
# RFC 5230 §4.5, §4.6
_RECIPIENT_FIELDS: Final = ("to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc")
_SENDER_FIELDS: Final = ("sender", "resent-from", "from", "resent-sender", "reply-to")
_LIST_FIELDS: Final = tuple(
    f"list-{name}"
    for name in ("id", "owner", "subscribe", "post", "unsubscribe", "help", "archive")
)
_DEFAULT_SUBJECT: Final = "Automated reply"


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    check_from(call.tags.get("from"), node)
    for address in call.tags.get("addresses", ()):  # as Pigeonhole: it is nobody's, and harms none
        if isinstance(address, str) and parse_address(address) is None:
            text = f"item in vacation :addresses argument '{address[:120]}' is not a valid address"
            checker.warn(node.at, text)
    policy = checker.policy
    period = call.tags.get("seconds")
    if "days" in call.tags:
        period = max(call.tags["days"], 1) * DAY_S
    if period is None:
        period = policy.vacation_default_s
    if period or "days" in call.tags:
        period = max(period, policy.vacation_minimum_s)
    if policy.vacation_maximum_s:
        period = min(period, policy.vacation_maximum_s)
    call.data = period
    if "mime" in call.tags and isinstance(call.arguments[0], str):
        problem = problem_of_mime(call.arguments[0])
        if problem is not None:
            raise Wrong(node.at, f"specified :mime reason is invalid: {problem}")


def problem_of_mime(text: str) -> str | None:
    """What is no header and a body, in a `:mime` text. RFC 5230 §4.3."""
    header = text.partition("\r\n\r\n")[0]
    if not header.isascii():
        return "its header has characters that are not ASCII"
    return None


def _vacation(machine: Machine, call: Call) -> Suspended:
    """Whether it is time again for this sender, says who carries it out."""
    if not machine.circumstances.may_reply:
        raise RunProblem("vacation can only be used for a message that is delivered")
    if any(isinstance(action, Reply) for action in machine.actions):
        raise RunProblem("duplicate vacation action not allowed")
    given_from = from_of(machine, call)
    is_large = machine.message.header_size > LARGE_OCTETS
    subject = machine.text(call.tags["subject"]) if "subject" in call.tags else None
    recipient = yield from aside(is_large, lambda: _sender_of(machine))
    own = yield from _own_addresses(machine, call)
    is_large = is_large or len(own) > MANY_ADDRESSES
    reason = yield from aside(is_large, lambda: _why_not(machine, recipient, own))
    own_recipient = yield from aside(is_large, lambda: _own_recipient(machine, own))
    if reason is None and own_recipient is None:
        if machine.policy.vacation_checks_recipient:
            reason = "the message was not explicitly addressed to its recipient"
        own_recipient = parse_path(machine.envelope.recipient or "")
    if reason is not None or recipient is None:
        machine.note(f"no vacation reply: {reason}")
        return
    text = machine.text(call.arguments[0])
    sent_from = given_from or own_recipient
    octets = yield from aside(
        is_large or len(text) + len(subject or "") > LARGE_OCTETS,
        lambda: _composed(machine, call, text, subject, recipient, sent_from),
    )
    machine.made(len(octets))
    sender = yield from envelope_sender(machine, machine.policy.vacation_from)
    once = Once(_handle(machine, call, recipient), call.data)
    action = Reply(
        str(recipient), octets, once, sender, copy_of(machine, call), machine.place(call)
    )
    machine.add(action, cancels_keep=False)


def _sender_of(machine: Machine) -> Address | None:
    """Whom a reply goes to: the envelope's sender, with the name that the header has for it."""
    sender = machine.envelope.sender
    known = [
        address
        for name in _SENDER_FIELDS
        for field in machine.message.named(name)
        for address in field.addresses
    ]
    if machine.policy.vacation_names_from_header and sender and known:
        return known[0]
    address = parse_path(sender or "")
    if address is None:
        return None
    return next(
        (known_address for known_address in known if _same(known_address, address)), address
    )


def _same(address: Address, other: Address) -> bool:
    return address.plain.casefold() == other.plain.casefold()


def _own_addresses(machine: Machine, call: Call) -> Suspended:
    """Where the owner gets mail, as far as is known (RFC 5230 §4.5)."""
    texts: list[str] = [machine.envelope.recipient or ""]
    if machine.policy.vacation_uses_original and machine.envelope.original:
        texts.append(machine.envelope.original)
    texts += machine.texts(call.tags.get("addresses", ()))
    texts += yield OwnAddresses()
    addresses = []
    for text in texts:
        machine.charge(ADDRESS_STEPS)
        yield None
        address = parse_address(text)
        if address is not None:
            addresses.append(address)
    return addresses


def _own_recipient(machine: Machine, own: Iterable[Address]) -> Address | None:
    """The own address that the header has."""
    known = {address.plain.casefold(): address for address in own}
    for name in _RECIPIENT_FIELDS:
        for field in machine.message.named(name):
            for address in field.addresses:
                if address.plain.casefold() in known:
                    return known[address.plain.casefold()]
    return None


def _why_not(machine: Machine, recipient: Address | None, own: Iterable[Address]) -> str | None:
    """Whom a reply would only annoy (RFC 5230 §4.6, RFC 3834 §2)."""
    if recipient is None:
        return "the message has no sender"
    if any(_same(recipient, address) for address in own):
        return "the message is from an own address"
    local = recipient.local.lower()
    if local.startswith(("mailer-daemon", "listserv", "majordomo", "owner-")) or local.endswith(
        "-request"
    ):
        return "the sender is a program"
    message = machine.message
    if any(message.named(name) for name in _LIST_FIELDS):
        return "the message is from a mailing list"
    for field in message.named("precedence"):
        if field.text.strip().lower() in ("bulk", "junk", "list"):
            return "the message is bulk mail"
    if is_automatic(machine):
        return "the message was sent by a program"
    for field in message.named("x-auto-response-suppress"):
        words = {word.strip().lower() for word in field.text.split(",")}
        if words & {"all", "oof"}:
            return "the message asks for no replies"
    return None


def _subject(machine: Machine) -> str:
    """Where the script says none."""
    policy = machine.policy
    original = next((field.text for field in machine.message.named("subject")), "")
    most = policy.vacation_subject_characters
    if original and policy.vacation_subject_template:
        template = policy.vacation_subject_template
        return shortened(template.replace("%{subject}", "%$").replace("%$", original), most)
    if original:
        return shortened(f"Auto: {original}", most)
    return policy.vacation_subject or _DEFAULT_SUBJECT


def _composed(
    machine: Machine,
    call: Call,
    reason: str,
    subject: str | None,
    recipient: Address,
    sender: Address | None,
) -> bytes:
    fields = common_fields(machine, "vacation", str(recipient))
    if sender is not None:
        fields.append(("From", format_address(sender)))
    fields += [
        ("To", format_address(recipient)),
        ("Subject", _subject(machine) if subject is None else subject),
        *threading_fields(machine),
        ("Auto-Submitted", "auto-replied (vacation)"),
        ("Precedence", "bulk"),
        ("X-Auto-Response-Suppress", "All"),
        ("MIME-Version", "1.0"),
    ]
    if "mime" in call.tags:
        header = format_message(fields, b"").removesuffix(b"\r\n")
        return header + format_lines(reason)
    fields += [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "8bit"),
    ]
    return format_message(fields, format_lines(reason))


def _handle(machine: Machine, call: Call, recipient: Address) -> str:
    """Of who is answered, and of the handle, or all that makes the answer (RFC 5230 §4.2): variables as their names, so that
    a subject with that of the message in it is the same answer."""
    tags = call.tags
    if "handle" in tags:
        facts = [machine.text(tags["handle"])]
    else:
        facts = [source_of(tags.get(name, "")) for name in ("subject", "from")]
        facts += [str("mime" in tags), source_of(call.arguments[0])]
    joined = "\0".join((recipient.plain.casefold(), *facts))
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:32]


VACATION: Final = Extension(
    "vacation",
    words=(
        Word(
            "vacation",
            (Argument("reason", Takes.STRING),),
            (
                Tag("days", Takes.NUMBER, group="period", value="days"),
                Tag("subject", Takes.STRING),
                Tag("from", Takes.STRING),
                Tag("addresses", Takes.STRINGS),
                Tag("mime"),
                Tag("handle", Takes.STRING),
            ),
            check=_check,
            run=_vacation,
        ),
    ),
)
VACATION_SECONDS: Final = Extension(
    "vacation-seconds",
    tags={"vacation": (Tag("seconds", Takes.NUMBER, group="period", value="seconds"),)},
    implies=("vacation",),
)
