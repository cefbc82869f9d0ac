"""What a STORE asks for, applied to the flags of one message after the other."""

from murder.api import FlagChange


class FlagEdit:
    """What a STORE asks for, applied to one message after the other."""

    def __init__(self, change: FlagChange, bits: int, keywords: list[str]) -> None:
        self._change = change
        self._bits = bits
        self._keywords = set(keywords)

    def bits(self, before: int) -> int:
        match self._change:
            case FlagChange.ADD:
                return before | self._bits
            case FlagChange.REMOVE:
                return before & ~self._bits
            case FlagChange.REPLACE:
                return self._bits

    def keywords(self, before: str) -> str:
        had = set(before.split())
        match self._change:
            case FlagChange.ADD:
                after = had | self._keywords
            case FlagChange.REMOVE:
                after = had - self._keywords
            case FlagChange.REPLACE:
                after = self._keywords
        return " ".join(sorted(after))
