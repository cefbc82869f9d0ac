"""What replies and notifications have in common: who sends, and where a copy is filed (RFC 8580, fcc)."""

from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Target
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Call, Extension, Tag, Takes
from murder.sieve.check.templates import Text
from murder.sieve.language.actions import check_mailbox, mailbox_of
from murder.sieve.language.flags import split_flags
from murder.sieve.language.mailboxes import check_special_use
from murder.sieve.problem import RunProblem
from murder.sieve.run.addresses import Address, parse_address
from murder.sieve.run.machine import Machine
from murder.sieve.run.words import canonical_flags

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

MAX_FIELD: Final = 1000  # octets of a field that says who sent it
_COPIED: Final = ("vacation", "notify")


def is_automatic(machine: Machine) -> bool:
    """Whether a program sent it (RFC 3834 §5): nothing automatic answers that."""
    for field in machine.message.named("auto-submitted"):
        if field.beginning(MAX_FIELD).partition(";")[0].strip().lower() != "no":
            return True
    return False


def check_from(value: Text | None, node: "Node") -> None:
    """Raises Wrong."""
    if isinstance(value, str) and parse_address(value) is None:
        raise Wrong(
            node.at, f"specified :from address '{value[:120]}' is invalid for {node.name} action"
        )


def from_of(machine: Machine, call: Call) -> Address | None:
    """The address of `:from`. Raises RunProblem."""
    if "from" not in call.tags:
        return None
    text = machine.text(call.tags["from"])
    address = parse_address(text)
    if address is None:
        raise RunProblem(
            f"specified :from address '{text[:120]}' is invalid for {call.word.name} action"
        )
    return address


def copy_of(machine: Machine, call: Call) -> Target | None:
    """Where `:fcc` (RFC 8580) wants a copy; None without."""
    tags = call.tags
    if "fcc" not in tags:
        return None
    return Target(
        mailbox_of(machine, tags["fcc"]),
        "create" in tags,
        machine.text(tags["mailboxid"]) if "mailboxid" in tags else "",
        machine.text(tags["specialuse"]) if "specialuse" in tags else "",
        canonical_flags(split_flags(machine.texts(tags["flags"]))) if "flags" in tags else (),
    )


def _check_copy(checker: "Checker", call: Call, node: "Node") -> None:
    """RFC 8580 §3: what says where to file stands beside `:fcc` only."""
    if "fcc" in call.tags:
        check_mailbox(call.tags["fcc"], node, ":fcc")
        check_special_use(checker, call, node)
        return
    for name in ("create", "flags", "mailboxid", "specialuse"):
        if name in call.tags:
            raise Wrong(node.at, f"the :{name} tag of the {node.name} command needs :fcc")


_TAGS: Final = (
    Tag("fcc", Takes.STRING),
    Tag("create", needs="mailbox"),
    Tag("flags", Takes.STRINGS, needs="imap4flags"),
    Tag("mailboxid", Takes.STRING, needs="mailboxid"),
    Tag("specialuse", Takes.STRING, needs="special-use"),
)
FCC: Final = Extension(
    "fcc",
    tags=dict.fromkeys(_COPIED, _TAGS),
    checks=dict.fromkeys(_COPIED, _check_copy),
)
