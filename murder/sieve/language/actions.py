"""What is done with a message: keep, discard, redirect (RFC 5228 §4), fileinto, copy (RFC 3894)."""

from typing import TYPE_CHECKING, Final

from murder.sieve.actions import Discard, FileInto, Keep, Redirect, Target
from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Result, Tag, Takes, Word
from murder.sieve.check.templates import Text
from murder.sieve.language.arguments import list_name, no_list
from murder.sieve.language.flags import flags_of
from murder.sieve.problem import RunProblem
from murder.sieve.questions import ListMembers
from murder.sieve.run.addresses import parse_address
from murder.sieve.run.machine import Machine
from murder.sieve.run.senders import envelope_sender

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.check.spec import Suspended
    from murder.sieve.grammar.tree import Node

MAX_MAILBOX_OCTETS: Final = 1024


def problem_of_mailbox(name: str) -> str | None:
    """What is wrong with a mailbox's name, whatever the server calls its mailboxes."""
    try:
        octets = name.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    if not name or len(octets) > MAX_MAILBOX_OCTETS:
        return "too long" if name else "empty"
    if any(letter < 32 or letter == 127 for letter in octets):
        return "it has control characters"
    return None


def mailbox_of(machine: Machine, value: Text) -> str:
    """Raises RunProblem for what is no mailbox's name. A tab that comes out of a header is a blank there."""
    name = machine.text(value)
    if not isinstance(value, str):
        name = name.replace("\t", " ")
    if (problem := problem_of_mailbox(name)) is not None:
        printable = name[:80].encode("utf-8", "backslashreplace").decode()
        raise RunProblem(f"invalid folder name '{printable}': {problem}")
    return name


def check_mailbox(value: Text | None, node: "Node", where: str) -> None:
    """Raises Wrong."""
    if isinstance(value, str) and (problem := problem_of_mailbox(value)) is not None:
        raise Wrong(node.at, f"invalid folder name '{value[:80]}' specified for {where}: {problem}")


def check_address(value: Text | None, node: "Node", where: str) -> None:
    """Raises Wrong for what mail cannot be sent to."""
    if isinstance(value, str) and parse_address(value) is None:
        raise Wrong(node.at, f"specified {where} '{value[:120]}' is not a valid address")


def _keep(machine: Machine, call: Call) -> Result:
    place = machine.place(call)
    machine.add(Keep(flags_of(machine, call), machine.version(), place=place))
    return None


def _discard(machine: Machine, call: Call) -> Result:
    machine.add(Discard(machine.place(call)))
    return None


def _check_redirect(checker: "Checker", call: Call, node: "Node") -> None:
    if not checker.limits.redirects:
        raise Wrong(node.at, "local policy prohibits the use of a redirect action")
    if "list" not in call.tags:
        check_address(call.arguments[0], node, "redirect address")


def _redirect(machine: Machine, call: Call) -> Result:
    text = machine.text(call.arguments[0])
    choice = machine.policy.redirect_from
    if "list" in call.tags or choice != "sender":
        return _redirect_asking(machine, call, text, choice)
    _redirect_to(machine, call, text, machine.envelope.sender or "")
    return None


def _redirect_asking(machine: Machine, call: Call, text: str, choice: str) -> "Suspended":
    """RFC 6134 §2.3 (a list), or an envelope that must be asked for."""
    sender = yield from envelope_sender(machine, choice)
    texts = (text,)
    if "list" in call.tags:
        name = list_name(text)
        texts = yield ListMembers(name)
        if texts is None:
            raise no_list(name)
        if not texts:
            raise RunProblem(f"the list '{name[:120]}' has nobody to whom it could be redirected")
    for address in texts:
        _redirect_to(machine, call, address, sender)
    if "copy" not in call.tags:
        machine.implicit_keep = False


def _redirect_to(machine: Machine, call: Call, text: str, sender: str) -> None:
    address = parse_address(text)
    if address is None:
        raise RunProblem(f"specified redirect address '{text[:120]}' is not a valid address")
    action = Redirect(str(address), machine.version(), sender, place=machine.place(call))
    machine.add(action, cancels_keep="copy" not in call.tags)


def _check_fileinto(checker: "Checker", call: Call, node: "Node") -> None:
    name = call.arguments[0]
    check_mailbox(name, node, "the fileinto command")
    prefix = checker.limits.own_prefix
    if not prefix or not isinstance(name, str) or call.tags.keys() & {"mailboxid", "specialuse"}:
        return
    separator = prefix[-1]
    if name.partition(separator)[0].upper() != "INBOX" and not name.startswith("user" + separator):
        printable = name[:80].encode("utf-8", "backslashreplace").decode()
        text = f"your own mailboxes are called '{prefix}…' here, and '{printable}' is none of them: where nobody shares one"
        checker.warn(node.at, f"fileinto command: {text} of that name, its mail stays in INBOX")


def _fileinto(machine: Machine, call: Call) -> Result:
    tags = call.tags
    target = Target(
        mailbox_of(machine, call.arguments[0]),
        "create" in tags,
        machine.text(tags["mailboxid"]) if "mailboxid" in tags else "",
        machine.text(tags["specialuse"]) if "specialuse" in tags else "",
    )
    action = FileInto(target, flags_of(machine, call), machine.version(), machine.place(call))
    machine.add(action, cancels_keep="copy" not in tags)
    return None


WORDS: Final = (
    Word("keep", run=_keep),
    Word("discard", run=_discard),
    Word("redirect", (Argument("address", Takes.STRING),), check=_check_redirect, run=_redirect),
)

FILEINTO: Final = Extension(
    "fileinto",
    words=(
        Word("fileinto", (Argument("folder", Takes.STRING),), check=_check_fileinto, run=_fileinto),
    ),
)
COPY: Final = Extension("copy", tags={name: (Tag("copy"),) for name in ("fileinto", "redirect")})
