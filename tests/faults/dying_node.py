"""`murder serve`, dying as by kill -9 at one step of a move, or of a RENAME over several backends: `dying_node.py STEP serve
--role …`."""

import os
import sys
from typing import Any

from murder.__main__ import main
from murder.roles.backend.moves.mover import Mover
from murder.roles.backend.renames.keeper import Renames

STEP = sys.argv.pop(1)


def dies(step: str) -> None:
    """At the one step."""
    if step == STEP:
        os._exit(9)


_init, _init_renames = Mover.__init__, Renames.__init__


def init(self: Mover, *args: Any, **more: Any) -> None:
    """As it is, with a step that ends the process."""
    _init(self, *args, **more)
    self.step = dies


def init_renames(self: Renames, *args: Any, **more: Any) -> None:
    """Likewise."""
    _init_renames(self, *args, **more)
    self.coordinator.step = self.parts.step = args[0].announcer.step = dies


Mover.__init__ = init  # type: ignore[method-assign] # the point of this file
Renames.__init__ = init_renames  # type: ignore[method-assign] # likewise
sys.exit(main())
