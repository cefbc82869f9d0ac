"""The files that say which server a user's session goes to: a line for each user, and expressions for who has none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from murder.config import Config
from murder.config.popmap import Place, place_in, read_popmap, servers_in
from murder.config.popmap_regex import Row, first_place, read_popmap_regex
from murder.errors import Code, Refusal, UpstreamFailure, UpstreamKind

T = TypeVar("T")
SECTION = "frontend.multiplexor"


@dataclass(frozen=True, slots=True)
class Tables:
    """As they were read. `known` are the servers that may come out of a name that a user has chosen."""

    users: Mapping[str, Place] = field(default_factory=dict)
    expressions: Sequence[Row] = ()
    known: frozenset[str] = frozenset()

    @classmethod
    def read(cls, config: Config) -> Self:
        """Raises Refusal with a sentence."""
        multiplexor = config.multiplexor
        if "table" not in multiplexor.find:
            return cls()
        return cls(
            _read("table", multiplexor.table, read_popmap) or {},
            _read("table_regex", multiplexor.table_regex, read_popmap_regex) or (),
            frozenset(config.servers),
        )

    def place_of(self, user: str) -> Place | None:
        """None where neither has the user. Raises UpstreamFailure where what comes out is no server of ours."""
        listed = place_in(self.users, user)
        if listed is not None or not self.expressions:
            return listed
        try:
            made = first_place(self.expressions, user)
        except ValueError as error:
            raise _failed(f"what it makes of {user!a}: {error}") from None
        if made is None:
            return None
        place, is_written_there = made
        if not is_written_there and place.server not in self.known:
            raise _failed(
                f"it makes {place.server[:100]!a} of {user!a}, which murder.toml does not know; "
                'if it is one of yours, write [servers."NAME"]'
            )
        return place

    def servers(self) -> set[str]:
        """Those that are written there."""
        fixed = {row.fixed.server for row in self.expressions if row.fixed is not None}
        return fixed.union(servers_in(self.users))


def _failed(text: str) -> UpstreamFailure:
    return UpstreamFailure(UpstreamKind.RESOLVE, f"{SECTION}.table_regex", text)


def _read(key: str, file: Path | None, read: Callable[[Path], T]) -> T | None:
    if file is None:
        return None
    try:
        return read(file)
    except OSError as error:
        text = f"{SECTION}.{key}: {file}: {error.strerror}"
        raise Refusal(Code.UNAVAILABLE, text) from error
    except ValueError as error:
        text = f"{SECTION}.{key}: {file}: {error}"
        raise Refusal(Code.UNAVAILABLE, text) from error
