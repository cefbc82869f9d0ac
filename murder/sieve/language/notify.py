"""Notifications: RFC 5435, by mail: RFC 5436. No other method is there; `valid_notify_method` says so."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from murder.sieve.actions import Notify
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match
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
)
from murder.sieve.run.machine import Machine
from murder.sieve.run.senders import envelope_sender

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

MAX_RECIPIENTS: Final = 8  # of one notification, as Pigeonhole
MAX_FIELDS: Final = 16  # that a method names
MAX_METHOD: Final = 4096  # octets
METHOD_STEPS: Final = 10  # of one, and of so many octets of it
MAX_SUBJECT: Final = 256  # characters, as Pigeonhole: a whole text may be given as the message
# Methods that others have: a script that names one is taken, and where it comes to that, nobody is told by it
ELSEWHERE: Final = frozenset({"xmpp", "tel", "sms", "sip", "sips", "http", "https"})
# RFC 5436 §2.7: a method does not say these
_RESERVED: Final = frozenset(
    "auto-submitted received message-id date from sender reply-to resent-from resent-to resent-date"
    " mime-version content-type content-transfer-encoding importance x-priority x-sieve".split()
)
# RFC 6068 §2: what is not reserved, percent-encoded otherwise
_URI_TEXT: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$'()*+,:@/]|%[0-9A-Fa-f]{2})*+\Z")
_PIECE: Final = re.compile(r'(?:[^,"]++|"[^"]*+"?)++')  # between commas that are not quoted
_NAME: Final = re.compile(r"[!-9;-~]{1,100}\Z")
_OPTION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*=[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_PRIORITIES: Final = {"1": "1 (High)", "2": "3 (Normal)", "3": "5 (Low)"}
_IMPORTANCE: Final = {"1": "high", "2": "normal", "3": "low"}


@dataclass(slots=True)
class Mailto:
    """A `mailto:` URI, decoded."""

    to: list[Address] = field(default_factory=list)
    cc: list[Address] = field(default_factory=list)
    bcc: list[Address] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)
    subject: str | None = None
    body: str | None = None


def parse_mailto(uri: str) -> Mailto:
    """Raises ValueError for what is none."""
    scheme, colon, rest = uri.partition(":")
    if scheme.lower() != "mailto" or not colon:
        raise ValueError(f"the method '{scheme[:30]}' is not supported")
    if len(uri) > MAX_METHOD:
        raise ValueError("it is too long")
    path, _, query = rest.partition("?")
    mailto = Mailto()
    mailto.to += _recipients(path)
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError("a header has no name, or no value")
        _add_field(mailto, _decoded(name).lower(), _decoded(value), value)
    if len(mailto.fields) > MAX_FIELDS:
        raise ValueError("it has too many headers")
    seen: set[str] = set()
    for addresses in (mailto.to, mailto.cc, mailto.bcc):
        fresh = {address.plain: address for address in addresses if address.plain not in seen}
        seen.update(fresh)
        addresses[:] = fresh.values()
    if len(seen) > MAX_RECIPIENTS:
        raise ValueError("it has too many recipients")
    return mailto


def _decoded(text: str) -> str:
    if not _URI_TEXT.match(text):
        raise ValueError("it has characters that are not allowed in a URI")
    return unquote_to_bytes(text).decode("utf-8", "replace")


def _recipients(text: str) -> list[Address]:
    decoded = _decoded(text)
    if not decoded:
        return []
    addresses = []
    for piece in _PIECE.findall(decoded):
        address = parse_address(piece)
        if address is None:
            raise ValueError(f"'{piece.strip()[:80]}' is not an address")
        addresses.append(address)
    return addresses


def _add_field(draft: Mailto, name: str, value: str, raw: str) -> None:
    match name:
        case "to":
            draft.to += _recipients(raw)
        case "cc":
            draft.cc += _recipients(raw)
        case "bcc":
            draft.bcc += _recipients(raw)
        case "subject":
            draft.subject = value
        case "body":
            draft.body = value
        case _:
            if not _NAME.match(name):
                raise ValueError(f"'{name[:60]}' is not the name of a header")
            if name not in _RESERVED and not name.startswith("resent-"):
                draft.fields.append((name.title(), value))


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    if not checker.limits.notifications:
        raise Wrong(node.at, "local policy prohibits the use of a notify action")
    check_from(call.tags.get("from"), node)
    importance = call.tags.get("importance")
    if isinstance(importance, str) and importance not in _PRIORITIES:
        raise Wrong(node.at, f"invalid :importance value for notify command: '{importance[:20]}'")
    for option in call.tags.get("options", ()):
        if isinstance(option, str) and not _OPTION.match(option):
            checker.source.report(node.at, f"notify command: invalid option '{option[:60]!r}'")
    method = call.arguments[0]
    if isinstance(method, str) and (scheme := _elsewhere(method)):
        checker.warn(node.at, f"notify command: nobody is told by {scheme} here")
    elif isinstance(method, str):
        try:
            parse_mailto(method)
        except ValueError as error:
            raise Wrong(
                node.at, f"notify command: invalid method '{method[:120]}': {error}"
            ) from None


def _elsewhere(uri: str) -> str:
    """Its scheme, where that is one of a method that is not here; else empty."""
    scheme, colon, _ = uri.partition(":")
    return scheme.lower() if colon and scheme.lower() in ELSEWHERE else ""


def _notify(machine: Machine, call: Call) -> Suspended:
    text = machine.text(call.arguments[0])
    if scheme := _elsewhere(text):
        machine.note(f"line {call.line}: no notification: nobody is told by {scheme} here")
        return
    try:
        method = parse_mailto(text)
    except ValueError as error:
        raise RunProblem(f"notify command: invalid method '{text[:120]}': {error}") from None
    importance = machine.text(call.tags.get("importance", "2"))
    if importance not in _PRIORITIES:
        importance = "2"
    given_from = from_of(machine, call)
    if is_automatic(machine):
        machine.note("no notification: the message was sent by a program")
        return
    recipients = _not_notified(machine, method)
    own = yield OwnAddresses()
    owner = (parse_address(own[0]) if own else None) or parse_path(machine.envelope.recipient or "")
    message = machine.text(call.tags.get("message", ""))
    is_large = max(machine.message.header_size, len(message)) > LARGE_OCTETS
    sent_from = given_from or owner
    octets = yield from aside(
        is_large, lambda: _composed(machine, call, method, importance, message, sent_from, owner)
    )
    options = machine.texts(call.tags.get("options", ()))
    machine.made(len(octets) + sum(map(len, options)))
    named = "postmaster" if given_from is None else str(given_from)
    sender = yield from envelope_sender(machine, machine.policy.notify_from or named)
    action = Notify(
        text,
        recipients,
        octets,
        sender,
        message,
        int(importance),
        options,
        copy_of(machine, call),
        machine.place(call),
    )
    machine.add(action, cancels_keep=False)


def _not_notified(machine: Machine, method: Mailto) -> tuple[str, ...]:
    """Each recipient is told once of a message."""
    notified = machine.state.setdefault("notified", set())
    for addresses in (method.to, method.cc, method.bcc):
        addresses[:] = [address for address in addresses if address.plain not in notified]
        notified.update(address.plain for address in addresses)
    return tuple(str(recipient) for recipient in (*method.to, *method.cc, *method.bcc))


def _composed(
    machine: Machine,
    call: Call,
    method: Mailto,
    importance: str,
    message: str,
    sender: Address | None,
    owner: Address | None,
) -> bytes:
    """RFC 5436 §2.7."""
    original = next((subject_field.text for subject_field in machine.message.named("subject")), "")
    fields = common_fields(machine, "notify", machine.text(call.arguments[0]), message)
    if sender is not None:
        fields.append(("From", _shown(sender)))
    for name, addresses in (("To", method.to), ("Cc", method.cc)):
        if addresses:
            fields.append((name, ", ".join(map(_shown, addresses))))
    subject = message or method.subject or original or "Notification"
    fields.append(("Subject", shortened(subject, MAX_SUBJECT)))
    automatic = "auto-notified"
    if owner is not None:
        automatic += f'; owner-email="{owner.plain}"'
    fields += [
        ("Auto-Submitted", automatic),
        ("Precedence", "bulk"),
        ("X-Priority", _PRIORITIES[importance]),
        ("Importance", _IMPORTANCE[importance]),
        *method.fields,
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "8bit"),
    ]
    body = method.body
    if body is None:
        whose = ", ".join(
            str(address)
            for from_field in machine.message.named("from")
            for address in from_field.addresses[:1]
        )
        body = (
            message or f"Notification of new message.\r\n\r\nFrom: {whose}\r\nSubject: {original}"
        )
    return format_message(fields, format_lines(body))


def _shown(address: Address) -> str:
    return format_address(address) if address.name else str(address)


def _valid(machine: Machine, call: Call) -> Suspended:
    for uri in machine.texts(call.arguments[0]):
        machine.charge(METHOD_STEPS + min(len(uri), MAX_METHOD) // METHOD_STEPS)
        yield None
        try:
            parse_mailto(uri)
        except ValueError:
            return False
    return True


def _capability(machine: Machine, call: Call) -> Result:
    """RFC 5435 §5: by mail nobody knows who is online."""
    uri, name = machine.text(call.arguments[0]), machine.text(call.arguments[1])
    try:
        parse_mailto(uri)
    except ValueError:
        return False
    return match(machine, call, ["maybe"]) if name.lower() == "online" else False


ENOTIFY: Final = Extension(
    "enotify",
    words=(
        Word(
            "notify",
            (Argument("method", Takes.STRING),),
            (
                Tag("from", Takes.STRING),
                Tag("importance", Takes.STRING),
                Tag("options", Takes.STRINGS),
                Tag("message", Takes.STRING),
            ),
            check=_check,
            run=_notify,
        ),
        Word(
            "valid_notify_method",
            (Argument("notification-uris", Takes.STRINGS),),
            is_test=True,
            run=_valid,
        ),
        Word(
            "notify_method_capability",
            (
                Argument("notification-uri", Takes.STRING),
                Argument("notification-capability", Takes.STRING),
                KEYS,
            ),
            MATCH_TAGS,
            is_test=True,
            run=_capability,
        ),
    ),
)
