"""Notifications as a draft had them before RFC 5435, and as many a script still does: by mail only.

draft-martin-sieve-notify-01. `$from$`, `$env-from$`, `$subject$` and `$text$` stand for what they say.
"""

import re
from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Notify
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.fields import texts_of
from murder.sieve.language.sending import is_automatic
from murder.sieve.match.comparators import COMPARATORS
from murder.sieve.match.kinds import CONTAINS, IS, MATCHES
from murder.sieve.match.matching import Matching
from murder.sieve.problem import RunProblem
from murder.sieve.questions import OwnAddresses
from murder.sieve.run.addresses import parse_address
from murder.sieve.run.compose import common_fields, format_lines, format_message
from murder.sieve.run.machine import Machine
from murder.sieve.run.parts import content_of, parts_in, structure_of
from murder.sieve.run.senders import envelope_sender

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

DEFAULT_MESSAGE: Final = "$from$: $subject$"
MAX_TEXT: Final = 1000  # characters of `$text$`
MAX_RECIPIENTS: Final = 8
_IDS: Final = "notify ids"
_WORD: Final = re.compile(r"\$(from|env-from|subject|text)(?:\[([0-9]{1,6})\])?\$")
_IMPORTANCE: Final = {"high": "1", "normal": "2", "low": "3"}
_IMPORTANCES: Final = tuple(Tag(name, group="importance") for name in _IMPORTANCE)


def _check(checker: "Checker", call: Call, node: "Node") -> None:
    method = call.tags.get("method", "mailto")
    if isinstance(method, str) and method.lower() != "mailto":
        raise Wrong(node.at, f"notify command: the method '{method[:40]}' is not supported")
    for option in call.tags.get("options", ()):
        if isinstance(option, str) and parse_address(option) is None:
            raise Wrong(node.at, f"notify command: '{option[:120]}' is not a valid address")


def _notify(machine: Machine, call: Call) -> Suspended:
    if is_automatic(machine):
        machine.note("no notification: the message was sent by a program")
        return
    recipients = _recipients(machine, call)
    text = machine.text(call.tags.get("message", DEFAULT_MESSAGE))
    body = yield from _filled(machine, text)
    own = yield OwnAddresses()
    sender = yield from envelope_sender(machine, machine.policy.notify_from or "postmaster")
    importance = _IMPORTANCE[call.tags.get("importance", "normal")]
    fields = [
        *common_fields(machine, "notify", text, *recipients),
        ("From", own[0] if own else f"postmaster@{machine.circumstances.host}"),
        ("To", ", ".join(recipients)),
        ("Subject", f"[SIEVE] {body[:60]}"),
        ("Auto-Submitted", "auto-generated (notify)"),
        ("Precedence", "bulk"),
        ("X-Priority", importance),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "8bit"),
    ]
    octets = format_message(fields, format_lines(body))
    machine.made(len(octets))
    action = Notify(
        f"mailto:{','.join(recipients)}",
        recipients,
        octets,
        sender,
        text,
        int(importance),
        place=machine.place(call),
    )
    machine.add(action, cancels_keep=False)
    name = machine.text(call.tags.get("id", ""))
    machine.state.setdefault(_IDS, {})[action.key] = name


def _recipients(machine: Machine, call: Call) -> tuple[str, ...]:
    """Each is told once of a message. Raises RunProblem."""
    notified = machine.state.setdefault("notified", set())
    addresses: list[str] = []
    for option in machine.texts(call.tags.get("options", ())):
        address = parse_address(option)
        if address is None:
            raise RunProblem(f"notify command: '{option[:120]}' is not a valid address")
        if address.plain not in notified and len(addresses) < MAX_RECIPIENTS:
            notified.add(address.plain)
            addresses.append(str(address))
    return tuple(addresses)


def _filled(machine: Machine, text: str) -> Suspended:
    pieces: list[str] = []
    at = 0
    for word in _WORD.finditer(text):
        pieces.append(text[at : word.start()])
        at = word.end()
        match word[1]:
            case "from" | "subject" as name:
                texts = yield from texts_of(machine, machine.message.named(name)[:1])
                value = "".join(texts)
            case "env-from":
                value = machine.envelope.sender or ""
            case _:
                value = yield from _first_text(machine)
        most = min(int(word[2]), MAX_TEXT) if word[2] else MAX_TEXT
        pieces.append(value[:most])
        machine.made(len(value[:most]))
    pieces.append(text[at:])
    return "".join(pieces)


def _first_text(machine: Machine) -> Suspended:
    """The begin of the first part that is text."""
    root = yield from structure_of(machine, machine.message)
    for part in parts_in(root):
        if part.media == (b"TEXT", b"PLAIN"):
            text = yield from content_of(machine, machine.message, part, is_text=True)
            return text[:MAX_TEXT]
    return ""


def _denotify(machine: Machine, call: Call) -> Result:
    """Take back what was to be told before."""
    ids = machine.state.get(_IDS, {})
    kind = call.tags.get("match")
    matching = None
    if kind is not None:
        try:
            key = machine.text(call.tags[kind.name])
            matching = Matching(kind, COMPARATORS["i;octet"]).prepared((key,))
        except ValueError as error:
            raise RunProblem(f"denotify command: invalid key: {error}") from None
    wanted = call.tags.get("importance")
    notified = machine.state.get("notified", set())
    for action in [done for done in machine.actions if isinstance(done, Notify)]:
        if wanted is not None and str(action.importance) != _IMPORTANCE[wanted]:
            continue
        if matching is None or matching.first([ids.get(action.key, "")]):
            machine.actions.remove(action)
            notified.difference_update(action.recipients)
    return None


NOTIFY: Final = Extension(
    "notify",
    words=(
        Word(
            "notify",
            (),
            (
                Tag("method", Takes.STRING),
                Tag("id", Takes.STRING),
                Tag("options", Takes.STRINGS),
                Tag("message", Takes.STRING),
                *_IMPORTANCES,
            ),
            check=_check,
            run=_notify,
        ),
        Word(
            "denotify",
            (),
            (
                *(Tag(kind.name, Takes.STRING, "match", kind) for kind in (IS, CONTAINS, MATCHES)),
                *_IMPORTANCES,
            ),
            run=_denotify,
        ),
    ),
    excludes=("enotify",),
)
