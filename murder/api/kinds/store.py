"""Plugins that keep messages."""

from typing import Final

from murder.api.contract.store import STORE_CHECKS
from murder.api.kinds.kind import Kind

ADVICE: Final = """
# This is the reference store, complete and in memory. To keep mail elsewhere: 1. give make_store its Settings (a frozen
# dataclass of that name; its table is [plugins.@MODULE@]). 2. Put what `_Box` holds where it survives; a method that
# has returned must be durable. 3. Leave slow work to asyncio.to_thread. murder/api/store.py has the rules.
"""
STORE: Final = Kind(
    "store",
    "make_store",
    "A mailbox store: where a backend keeps messages.",
    STORE_CHECKS,
    ADVICE,
    based_on="store_memory.py",
    key="backend.store",
    role="backend",
    makes=True,
    methods=("start", "open", "create"),
    starts=True,
)
