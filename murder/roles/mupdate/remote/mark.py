"""A master's mark (`MailboxList.mark`), as who follows it reads it."""

from typing import Final

MAX_DIGITS: Final = 19  # of a change's number, which has 64 bits


def seq_of(mark: str) -> int:
    """The number of the change that it stands behind; 0 where it is no mark."""
    number = mark.split(":")[1] if mark.count(":") == 2 else ""
    return int(number) if number.isdecimal() and len(number) <= MAX_DIGITS else 0
