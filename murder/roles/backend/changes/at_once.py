"""The power of a mailbox to say how it stands without waiting (`murder.api.store.TellsAtOnce`), found in few steps."""

from collections.abc import Callable
from functools import lru_cache

from murder.api.store import Mailbox, Numbers, TellsAtOnce


@lru_cache(maxsize=64)
def _tells_at_once(kind: type) -> bool:
    return issubclass(kind, TellsAtOnce)


def at_once(mailbox: Mailbox) -> Callable[[], Numbers | None] | None:
    """A mailbox's power to tell its numbers, if it has it: asked of each, and of each class once."""
    return mailbox.numbers if _tells_at_once(type(mailbox)) else None  # type: ignore[attr-defined] # has been asked
