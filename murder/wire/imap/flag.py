"""Flags on the wire (RFC 3501 §9 `flag`, `flag-list`)."""

from collections.abc import Iterable
from typing import Final

from murder.model.flag import (
    MAX_KEYWORD_OCTETS,
    MAX_KEYWORD_OCTETS_OF_MESSAGE,
    MAX_KEYWORDS_OF_MESSAGE,
    RECENT,
    SYSTEM_FLAGS,
    canonical,
    fits_message,
    in_order,
    is_keyword,
)
from murder.wire.token import Scanner

MAX_WORDS: Final = 1000  # of one list, with those that are named again: about a millisecond
FEW: Final = MAX_KEYWORD_OCTETS_OF_MESSAGE // (MAX_KEYWORD_OCTETS + 1)  # they fit in any case


# flag = "\Answered" / "\Flagged" / "\Deleted" / "\Seen" / "\Draft" / flag-keyword / flag-extension
def parse_flag(scanner: Scanner) -> str:
    """A flag that a client sets or searches, in its one spelling; BadSyntax for an unknown `\\Word`."""
    start = scanner.at
    octets = scanner.flag()
    flag = canonical(octets.decode("ascii"))
    if flag is None or flag == "\\*":
        scanner.at = start
        raise scanner.bad("a keyword, or one of " + " ".join(SYSTEM_FLAGS))
    if len(flag) > MAX_KEYWORD_OCTETS:
        scanner.at = start
        raise scanner.bad(f"a keyword of at most {MAX_KEYWORD_OCTETS} octets")
    return flag


# flag-list = "(" [flag *(SP flag)] ")"
def parse_flag_list(scanner: Scanner) -> frozenset[str]:
    """Flags in parentheses. `\\Recent` is dropped, not refused: mutt and imapsync copy flags with it."""
    start = scanner.at
    scanner.open()
    flags: dict[str, str] = {}
    _take_list(scanner, flags)
    return _checked(scanner, start, flags)


# flag-list / (flag *(SP flag))
def parse_flags(scanner: Scanner) -> frozenset[str]:
    """Flags with or without parentheses, as STORE takes them: without `\\Recent`, which nobody stores."""
    start = scanner.at
    flags: dict[str, str] = {}
    if scanner.accept(b"("):
        _take_list(scanner, flags)
    else:
        _take(scanner, flags)
        words = 1
        while not scanner.at_end():
            scanner.space()
            words += 1
            if words > MAX_WORDS:
                raise scanner.bad(f"at most {MAX_WORDS} flags")
            _take(scanner, flags)
    if RECENT.lower() in flags:
        scanner.at = start
        raise scanner.bad("flags that can be stored")
    return _checked(scanner, start, flags)


def _take_list(scanner: Scanner, flags: dict[str, str]) -> None:
    words = 0
    while not scanner.accept(b")"):
        words += 1
        if words > MAX_WORDS:
            raise scanner.bad(f"at most {MAX_WORDS} flags")
        _take(scanner, flags)
        if not scanner.peek().startswith(b")"):
            scanner.space()


def _take(scanner: Scanner, flags: dict[str, str]) -> None:
    flag = parse_flag(scanner)
    flags.setdefault(flag.lower(), flag)


def _checked(scanner: Scanner, start: int, flags: dict[str, str]) -> frozenset[str]:
    flags.pop(RECENT.lower(), None)
    if len(flags) > MAX_KEYWORDS_OF_MESSAGE + len(SYSTEM_FLAGS):
        scanner.at = start
        raise scanner.bad(f"at most {MAX_KEYWORDS_OF_MESSAGE} keywords")
    if len(flags) > FEW and not fits_message([flag for flag in flags if is_keyword(flag)]):
        scanner.at = start
        raise scanner.bad(f"keywords of at most {MAX_KEYWORD_OCTETS_OF_MESSAGE} octets together")
    return frozenset(flags.values())


def format_flags(flags: Iterable[str]) -> bytes:
    """`(\\Seen $Junk)`, system flags first."""
    return b"(" + " ".join(in_order(flags)).encode("ascii", "replace") + b")"
