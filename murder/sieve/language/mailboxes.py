"""What a script asks of mailboxes and the server: RFC 5490 (mailbox, mboxmetadata, servermetadata), RFC 8579
(special-use), RFC 9042 (mailboxid)."""

import re
from typing import TYPE_CHECKING, Final

from murder.sieve.check.checker import Wrong
from murder.sieve.check.spec import Argument, Call, Extension, Suspended, Tag, Takes, Word
from murder.sieve.check.templates import Text
from murder.sieve.language.actions import problem_of_mailbox
from murder.sieve.language.arguments import KEYS, MATCH_TAGS, match
from murder.sieve.problem import RunProblem
from murder.sieve.questions import MailboxExists, MailboxIdExists, Metadata, SpecialUseExists
from murder.sieve.run.machine import Machine

if TYPE_CHECKING:
    from murder.sieve.check.checker import Checker
    from murder.sieve.grammar.tree import Node

MAX_ANNOTATION: Final = 1000  # octets of its name
_MAILBOX_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")  # RFC 8474 §7
_USE: Final = re.compile(r"\\[^\s\x00-\x1f\x7f-\U0010ffff(){%*\"\\\]]{1,64}\Z")


def problem_of_annotation(name: str) -> str | None:
    """RFC 5464 §3.2."""
    if not name.startswith("/"):
        return "it does not begin with a '/'"
    if name.endswith("/") or "//" in name or len(name) > MAX_ANNOTATION:
        return "it has an empty component, or is too long"
    if not name.isascii() or any(letter in "*%" or ord(letter) < 32 for letter in name):
        return "it has a '*', a '%', or a character that is not ASCII"
    if name.lower().split("/", 2)[1] not in ("private", "shared"):
        return "it begins with neither '/private/' nor '/shared/'"
    return None


def _check_names(checker: "Checker", call: Call, node: "Node") -> None:
    for name in call.arguments[0]:
        warn_of_mailbox(checker, name, node)


def warn_of_mailbox(checker: "Checker", name: Text | None, node: "Node") -> None:
    """A test of what cannot be is no error: it does not hold."""
    if isinstance(name, str) and (problem := problem_of_mailbox(name)) is not None:
        printable = name[:80].encode("utf-8", "backslashreplace").decode()
        checker.warn(node.at, f"{node.name} test: invalid mailbox name '{printable}': {problem}")


def _mailbox(machine: Machine, value: Text) -> str | None:
    """None for what is no mailbox's name."""
    name = machine.text(value)
    return name if problem_of_mailbox(name) is None else None


def _mailboxexists(machine: Machine, call: Call) -> Suspended:
    for value in call.arguments[0]:
        name = _mailbox(machine, value)
        if name is None or not (yield MailboxExists(name)):
            return False
    return True


def _mailboxidexists(machine: Machine, call: Call) -> Suspended:
    for name in machine.texts(call.arguments[0]):
        if not (yield MailboxIdExists(name)):
            return False
    return True


def _check_mailbox_id(checker: "Checker", call: Call, node: "Node") -> None:
    given = call.tags.get("mailboxid")
    if isinstance(given, str) and not _MAILBOX_ID.match(given):
        raise Wrong(node.at, f"'{given[:60]}' is not a mailbox id")
    if given is not None and "specialuse" in call.tags:  # RFC 9042: one of them says where
        raise Wrong(
            node.at, f"the {node.name} command takes :mailboxid or :specialuse, and not both"
        )


def _check_annotations(checker: "Checker", call: Call, node: "Node") -> None:
    """Of the test's last argument, or the one before its keys, names of annotations."""
    if node.name in ("metadata", "metadataexists"):
        warn_of_mailbox(checker, call.arguments[0], node)
    place = 0 if node.name.startswith("server") else 1
    names = call.arguments[place]
    for name in names if isinstance(names, tuple) else (names,):
        if isinstance(name, str) and (problem := problem_of_annotation(name)) is not None:
            checker.warn(
                node.at, f"{node.name} test: annotation '{name[:60]}' is invalid: {problem}"
            )


def _metadata(machine: Machine, call: Call) -> Suspended:
    mailbox = None
    if call.word.name == "metadata":
        mailbox = _mailbox(machine, call.arguments[0])
        if mailbox is None:
            return False
    name = machine.text(call.arguments[-2])
    if problem_of_annotation(name) is not None:
        return False
    value = yield Metadata(mailbox, name.lower())
    if value is None:
        return False
    return (yield from matched(machine, call, [value]))


def matched(machine: Machine, call: Call, values: list[str]) -> Suspended:
    """`match`, in a word that is suspended."""
    result = match(machine, call, values)
    if isinstance(result, bool) or result is None:
        return result
    return (yield from result)


def _metadataexists(machine: Machine, call: Call) -> Suspended:
    mailbox = None
    if call.word.name == "metadataexists":
        mailbox = _mailbox(machine, call.arguments[0])
        if mailbox is None or not (yield MailboxExists(mailbox)):
            return False
    for name in machine.texts(call.arguments[-1]):
        if problem_of_annotation(name) is not None:
            return False
        if (yield Metadata(mailbox, name.lower())) is None:
            return False
    return True


def problem_of_use(use: str) -> str | None:
    """None where it is spelt as a special use (RFC 6154)."""
    return None if _USE.match(use) else f"special-use flag '{use[:60]}' is invalid"


def _check_uses(checker: "Checker", call: Call, node: "Node") -> None:
    warn_of_mailbox(checker, call.arguments[0], node)
    for use in call.arguments[1]:
        if isinstance(use, str) and (problem := problem_of_use(use)) is not None:
            raise Wrong(node.at, f"specialuse_exists test: {problem}")


def check_special_use(checker: "Checker", call: Call, node: "Node") -> None:
    """RFC 8579: a constant one is looked at before the script runs. Raises Wrong."""
    use = call.tags.get("specialuse")
    if isinstance(use, str) and (problem := problem_of_use(use)) is not None:
        raise Wrong(node.at, f"the {node.name} command: {problem}")


def _specialuse_exists(machine: Machine, call: Call) -> Suspended:
    mailbox = None
    if call.arguments[0] is not None:
        mailbox = _mailbox(machine, call.arguments[0])
        if mailbox is None:
            return False
    uses = machine.texts(call.arguments[1])
    for use in uses:
        if (problem := problem_of_use(use)) is not None:
            raise RunProblem(problem)
    if mailbox is not None and not (yield MailboxExists(mailbox)):
        return False
    return bool((yield SpecialUseExists(mailbox, uses)))


_MAILBOX: Final = Argument("mailbox", Takes.STRING)
_NAME: Final = Argument("annotation name", Takes.STRING)
_NAMES: Final = Argument("annotation names", Takes.STRINGS)


def _test(name: str, *arguments: Argument, run: object, matches: bool = False) -> Word:
    tags = MATCH_TAGS if matches else ()
    return Word(name, arguments, tags, is_test=True, check=_check_annotations, run=run)  # type: ignore[arg-type] # a Run


MAILBOX: Final = Extension(
    "mailbox",
    words=(
        Word(
            "mailboxexists",
            (Argument("mailbox names", Takes.STRINGS),),
            is_test=True,
            check=_check_names,
            run=_mailboxexists,
        ),
    ),
    tags={"fileinto": (Tag("create"),)},
)
MAILBOXID: Final = Extension(
    "mailboxid",
    words=(
        Word(
            "mailboxidexists",
            (Argument("mailbox ids", Takes.STRINGS),),
            is_test=True,
            run=_mailboxidexists,
        ),
    ),
    tags={"fileinto": (Tag("mailboxid", Takes.STRING),)},
    checks={"fileinto": _check_mailbox_id},
)
MBOXMETADATA: Final = Extension(
    "mboxmetadata",
    words=(
        _test("metadata", _MAILBOX, _NAME, KEYS, run=_metadata, matches=True),
        _test("metadataexists", _MAILBOX, _NAMES, run=_metadataexists),
    ),
)
SERVERMETADATA: Final = Extension(
    "servermetadata",
    words=(
        _test("servermetadata", _NAME, KEYS, run=_metadata, matches=True),
        _test("servermetadataexists", _NAMES, run=_metadataexists),
    ),
)
SPECIAL_USE: Final = Extension(
    "special-use",
    words=(
        Word(
            "specialuse_exists",
            (
                Argument("mailbox", Takes.STRING, optional=True),
                Argument("special-use flags", Takes.STRINGS),
            ),
            is_test=True,
            check=_check_uses,
            run=_specialuse_exists,
        ),
    ),
    tags={"fileinto": (Tag("specialuse", Takes.STRING),)},
    checks={"fileinto": check_special_use},
)
