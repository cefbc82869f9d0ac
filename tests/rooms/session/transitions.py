"""The transitions of a session: what is none is a misuse, and changes nothing."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol

import pytest

from murder.errors import Misuse


class HasState(Protocol):
    """A session; its steps are methods without arguments."""

    @property
    def state(self) -> Any: ...


def check_step(
    session: HasState, ways: Iterable[str], origin: Enum, step: str, goes_to: Enum | None
) -> None:
    """From `origin`, where a new session comes to by `ways`: to `goes_to`; None is a misuse."""
    for way in ways:
        getattr(session, way)()
    assert session.state is origin
    if goes_to is None:
        with pytest.raises(Misuse):
            getattr(session, step)()
    else:
        getattr(session, step)()
    assert session.state is (goes_to or origin)
