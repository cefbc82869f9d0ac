"""One worker of a backend, as its services get it."""

from dataclasses import dataclass

from murder.roles.backend.moves.mover import Mover
from murder.roles.backend.renames.keeper import Renames
from murder.roles.backend.shared import Backend


@dataclass(frozen=True, slots=True)
class BackendWorker:
    """`shared` is what all sessions have; `mover` moves mailboxes, `renames` renames what lies on several backends, and
    both are users of `shared` themselves."""

    shared: Backend
    mover: Mover
    renames: Renames
