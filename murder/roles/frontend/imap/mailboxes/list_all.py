"""An administrator's LIST of everything: rows of the list to lines, a batch at a time, without an object for each name.

Only what is far from the administrator's own tree goes this way, and only where a name is shown as it stands in the list
but for its separators: in the namespace that is not alternative, outside of domains. All else is for `ListWalk`.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from murder.model.name import collation_key
from murder.model.query.listing import ListQuery
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.wire.token import astring, quoted

BATCH: Final = 1000
_SEPARATOR: Final = 0x1F  # of collation keys
_DOMAIN: Final = b"\xff"
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.,/+&=^\x1f\n-]*\Z")  # atoms, one behind the other
_NIL: Final = re.compile(rb"(?:\A|\n)nil(?:\n|\Z)", re.IGNORECASE)
_UNIX: Final = bytes.maketrans(b"\x1f^", b"/.")
_DOTS: Final = bytes.maketrans(b"\x1f", b".")


class ListAll:
    """Collation keys in, lines out. A line is certain when the next key is known: it says whether there are children."""

    def __init__(self, query: ListQuery, word: bytes) -> None:
        separator = query.namespace.separator
        self._own = collation_key(query.own)
        self._table = _UNIX if query.namespace.unix_hierarchy else _DOTS
        delimiter = quoted(separator)
        self._heads = (
            b"* %s (\\HasNoChildren) %s " % (word, delimiter),
            b"* %s (\\HasChildren) %s " % (word, delimiter),
        )
        self._last: bytes | None = None  # the key whose line is not certain yet

    def is_special(self, key: bytes) -> bool:
        """Whether this one is for `ListWalk`."""
        return key.startswith((self._own, _DOMAIN))

    def lines(self, keys: Sequence[bytes], following: bytes | None = None) -> bytes:
        """The lines of these but the last, and of the last before; with `following`, the key behind them, all."""
        waiting = [*([] if self._last is None else [self._last]), *keys]
        if following is None:
            self._last = waiting.pop() if waiting else None
            after = [*waiting[1:], self._last or b""]
        else:
            self._last = None
            after = [*waiting[1:], following]
        if not waiting:
            return b""
        heads, below = self._heads, bytes((_SEPARATOR,))
        return b"".join(
            b"%s%s\r\n" % (heads[next_key.startswith(key + below)], name)
            for key, next_key, name in zip(waiting, after, self._names(waiting), strict=True)
        )

    def _names(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """As astrings."""
        joined = b"\n".join(keys)
        if _PLAIN.match(joined) and not _NIL.search(joined):
            names = joined.translate(self._table).split(b"\n")
            if len(names) == len(keys):
                return names
        return [astring(key.translate(self._table)) for key in keys]


def runs_of(mailboxes: MailboxList, listing: ListAll) -> Iterator[list[tuple[bool, list[bytes]]]]:
    """The keys of all active rows, a read transaction at a time, cut into runs: `(whether they are special, keys)`."""
    after: bytes | None = b""
    while after is not None:
        keys, after = mailboxes.shown_keys(after, BATCH)
        yield [(special, list(run)) for special, run in groupby(keys, listing.is_special)]
