"""How many rows there are of each owner, and of all, and their octets: so that a bound is looked at without a walk.

The rows are those of `records.deliveries`; triggers of the database count them, so that an older version, which knows
nothing of this, keeps them right, too.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

TABLE: Final = (
    "CREATE TABLE tallies (whose TEXT PRIMARY KEY, entries INTEGER NOT NULL, octets INTEGER NOT NULL) "
    "STRICT, WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of this `table` for which `only` holds, by `owner`: these and `octets` are of SQL, with `$` for the row. `all`:
    over all owners, too."""

    table: str
    owner: str
    octets: str = "0"
    only: str = "1"
    all: bool = True

    def whose(self) -> list[str]:
        """Of SQL: the names under which a row counts."""
        own = f"'{self.table} of ' || {self.owner}"
        return [own, f"'{self.table}'"] if self.all else [own]

    def statements(self) -> list[str]:
        """Which count what there is, and from then on."""
        made = []
        for whose in self.whose():
            # the bound that is none has SQLite sort these two, in place of whole rows with their octets
            rows = f"SELECT {whose} AS who, {self.octets} AS size FROM {self.table} WHERE {self.only} LIMIT -1"
            sums = f"SELECT who, count(*), coalesce(sum(size), 0) FROM ({rows}) GROUP BY who"
            made.append(_of(f"INSERT INTO tallies {sums}", ""))
        more = "".join(
            f"INSERT INTO tallies VALUES ({whose}, 1, {self.octets}) ON CONFLICT (whose) DO UPDATE "
            "SET entries=entries+1, octets=octets+excluded.octets; "
            for whose in self.whose()
        )
        less = "".join(
            f"UPDATE tallies SET entries=entries-1, octets=octets-{self.octets} WHERE whose={whose}; "
            f"DELETE FROM tallies WHERE whose={whose} AND entries<=0; "
            for whose in self.whose()
        )
        for when, row, holds, change in (
            ("INSERT", "NEW.", self.only, more),
            ("DELETE", "OLD.", self.only, less),
        ):
            made.append(
                f"CREATE TRIGGER {self.table}_{when.lower()} AFTER {when} ON {self.table} "
                f"WHEN {_of(holds, row)} BEGIN {_of(change, row)}END"
            )
        if self.only != "1":  # a row that no longer counts
            made.append(
                f"CREATE TRIGGER {self.table}_update AFTER UPDATE ON {self.table} "
                f"WHEN {_of(self.only, 'OLD.')} AND NOT ({_of(self.only, 'NEW.')}) BEGIN {_of(less, 'OLD.')}END"
            )
        return made


def _of(sql: str, row: str) -> str:
    return sql.replace("$", row)


def are_made(db: sqlite3.Connection) -> bool:
    """Whether they are counted already."""
    asked = "SELECT 1 FROM sqlite_master WHERE type='table' AND name='tallies'"
    return db.execute(asked).fetchone() is not None


def entries_of(db: sqlite3.Connection, table: str, owner: str | None = None) -> tuple[int, int]:
    """How many rows, and their octets; of all where no owner is named."""
    whose = table if owner is None else f"{table} of {owner}"
    row = db.execute("SELECT entries, octets FROM tallies WHERE whose=?", (whose,)).fetchone()
    return row or (0, 0)
