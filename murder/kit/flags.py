"""What a STORE asks for, applied to the flags of one message after the other."""

from murder.api import FlagChange
from murder.errors import Code, Refusal
from murder.model.flag import (
    MAX_KEYWORD_OCTETS_OF_MESSAGE,
    MAX_KEYWORDS_OF_MESSAGE,
    fits_message,
)


class FlagEdit:
    """What a STORE asks for, applied to one message after the other."""

    def __init__(self, change: FlagChange, bits: int, keywords: list[str]) -> None:
        self._change = change
        self._bits = bits
        self._keywords = set(keywords)
        # as nearly always: it is looked at for each message
        self._keeps_keywords = not keywords and change is not FlagChange.REPLACE

    def bits(self, before: int) -> int:
        match self._change:
            case FlagChange.ADD:
                return before | self._bits
            case FlagChange.REMOVE:
                return before & ~self._bits
            case FlagChange.REPLACE:
                return self._bits

    def keywords(self, before: str) -> str:
        """Raises Refusal(LIMIT) where they would be more than one message may have; what has more already, from elsewhere,
        keeps it."""
        if self._keeps_keywords:
            return before
        had = set(before.split())
        match self._change:
            case FlagChange.ADD:
                after = had | self._keywords
            case FlagChange.REMOVE:
                after = had - self._keywords
            case FlagChange.REPLACE:
                after = self._keywords
        if len(after) > len(had) and not fits_message(after):
            raise too_many()
        return " ".join(sorted(after))


def too_many() -> Refusal:
    """Of keywords, for one message."""
    return Refusal(
        Code.LIMIT,
        f"A message has at most {MAX_KEYWORDS_OF_MESSAGE} keywords, "
        f"of {MAX_KEYWORD_OCTETS_OF_MESSAGE} octets together",
    )
