"""One worker of a backend, as its services get it."""

from dataclasses import dataclass

from murder.backend.moves.mover import Mover
from murder.backend.renames.keeper import Renames
from murder.backend.shared import Backend


@dataclass(frozen=True, slots=True)
class BackendWorker:
    """`shared` is what all sessions have; `mover` moves mailboxes, `renames` renames what lies on several backends, and
    both are users of `shared` themselves."""

    shared: Backend
    mover: Mover
    renames: Renames
