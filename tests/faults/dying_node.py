"""`murder serve`, dying as by kill -9 at one step of a move: `dying_node.py STEP serve --role …`."""

import os
import sys
from typing import Any

from murder.__main__ import main
from murder.backend.moves.mover import Mover

STEP = sys.argv.pop(1)
_init = Mover.__init__


def init(self: Mover, *args: Any, **more: Any) -> None:
    """As it is, with a step that ends the process."""
    _init(self, *args, **more)
    self.step = lambda step: os._exit(9) if step == STEP else None


Mover.__init__ = init  # type: ignore[method-assign] # the point of this file
sys.exit(main())
