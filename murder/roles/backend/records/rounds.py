"""Whose mail is sent next: each user has a turn, however much another one has waiting.

Mail of shared mailboxes is nobody's, and has one turn together. A look costs the same whatever waits.
"""

import sqlite3
from typing import Final

USERS_AT_ONCE: Final = 100  # looked at by one call; a step of the index each
INDEX: Final = "CREATE INDEX IF NOT EXISTS outgoing_by_user ON outgoing (state, user, next_at)"


class Rounds:
    """From user to user, by name, round and round."""

    def __init__(self) -> None:
        self._from = ""  # the least name that has not had its turn in this round
        self._chosen: list[int] = []  # of one each, by the last look

    def next(self, db: sqlite3.Connection, state: int, now: float, most: int) -> list[int]:
        """The ids of so many rows of this state whose time has come: of several users the oldest of each, then who has
        waited longest."""
        oldest = db.execute(
            "SELECT id FROM outgoing WHERE state=? AND next_at<=? ORDER BY next_at LIMIT ?",
            (state, now, most + 1),
        )
        by_time = [id_ for (id_,) in oldest]
        self._chosen = []
        if len(by_time) <= most:
            return by_time
        chosen = self._chosen = self._one_of_each(db, state, now, most)
        return (chosen + [id_ for id_ in by_time if id_ not in chosen])[:most]

    def left_out(self, user: str, id_: int) -> None:
        """The first one that `next` gave and that finds no place now: who has had no turn has the next one."""
        if id_ in self._chosen:
            self._from = user

    def _one_of_each(self, db: sqlite3.Connection, state: int, now: float, most: int) -> list[int]:
        chosen: list[int] = []
        for _ in range(USERS_AT_ONCE):
            row = db.execute(
                "SELECT user, next_at, id FROM outgoing WHERE state=? AND user>=? "
                "ORDER BY user, next_at LIMIT 1",
                (state, self._from),
            ).fetchone()
            if row is None:
                if not self._from:
                    break
                self._from = ""
                continue
            user, next_at, id_ = row
            if id_ in chosen:  # once round
                break
            self._from = f"{user}\0"  # the next name there can be
            if next_at <= now:
                chosen.append(id_)
            if len(chosen) == most:
                break
        return chosen
