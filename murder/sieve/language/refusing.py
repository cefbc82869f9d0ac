"""Messages refused (RFC 5429), and those that came before (RFC 7352)."""

import hashlib
from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Once, Reject, Remember
from murder.sieve.check.spec import Argument, Call, Extension, Result, Suspended, Tag, Takes, Word
from murder.sieve.language.fields import texts_of
from murder.sieve.problem import RunProblem
from murder.sieve.questions import SeenBefore
from murder.sieve.run.machine import Machine

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node


def _reject(machine: Machine, call: Call) -> Result:
    """A bounce is not answered with another (RFC 5429 §2.1): it is discarded by who carries this out, if need be."""
    if not machine.circumstances.may_reply:
        raise RunProblem(f"{call.word.name} can only be used for a message that is delivered")
    if any(isinstance(action, Reject) for action in machine.actions):  # RFC 5429 §2.4
        raise RunProblem("duplicate reject/ereject action not allowed")
    text = machine.text(call.arguments[0])
    machine.made(len(text))
    machine.add(Reject(text, call.word.name == "ereject", machine.place(call)))
    return None


def _check_duplicate(checker: "Checker", call: Call, node: "Node") -> None:
    seconds = call.tags.get("seconds")
    if seconds is not None:
        call.data = min(seconds, checker.policy.duplicate_maximum_s)


def _duplicate(machine: Machine, call: Call) -> Suspended:
    """It is noted when all went well; a second test of the same in one run has the same answer (RFC 7352 §3)."""
    values = []
    if "uniqueid" in call.tags:
        values = [machine.text(call.tags["uniqueid"])]
    else:
        name = machine.text(call.tags.get("header", "message-id")).lower()
        values = yield from texts_of(machine, machine.message.named(name)[:1])
    if not values:
        return False
    handle = machine.text(call.tags.get("handle", ""))
    joined = "\0".join((handle, values[0])).encode("utf-8", "surrogateescape")
    key = hashlib.sha256(joined).hexdigest()[:32]
    period = call.data if call.data is not None else machine.policy.duplicate_default_s
    was_seen = bool((yield SeenBefore(key, period, "last" in call.tags)))
    if not was_seen or "last" in call.tags:
        machine.add(Remember(Once(key, period), machine.place(call)), cancels_keep=False)
    return was_seen


def _tests(name: str) -> Word:
    return Word(
        name,
        tags=(
            Tag("handle", Takes.STRING),
            Tag("header", Takes.STRING, group="value", value="header"),
            Tag("uniqueid", Takes.STRING, group="value", value="uniqueid"),
            Tag("seconds", Takes.NUMBER),
            Tag("last"),
        ),
        is_test=True,
        check=_check_duplicate,
        run=_duplicate,
    )


REJECT: Final = Extension(
    "reject", words=(Word("reject", (Argument("reason", Takes.STRING),), run=_reject),)
)
EREJECT: Final = Extension(
    "ereject", words=(Word("ereject", (Argument("reason", Takes.STRING),), run=_reject),)
)
DUPLICATE: Final = Extension(
    "duplicate", words=(_tests("duplicate"),), excludes=("vnd.dovecot.duplicate",)
)
VND_DUPLICATE: Final = Extension("vnd.dovecot.duplicate", words=(_tests("duplicate"),))
