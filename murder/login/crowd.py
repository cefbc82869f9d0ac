"""How many connections a user has at once, of all protocols that he logs in with; each worker counts its own."""

from collections import Counter

from murder.errors import Code, Refusal


class Crowd:
    """See the module. `most` is the limit, 0 for none."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self._of_user: Counter[str] = Counter()

    def enter(self, user: str) -> None:
        """One more. Raises Refusal(LIMIT)."""
        if 0 < self.most <= self._of_user[user]:
            raise Refusal(
                Code.LIMIT, f"{user} has {self.most} connections, and may not have more here"
            )
        self._of_user[user] += 1

    def leave(self, user: str) -> None:
        self._of_user[user] -= 1
        if self._of_user[user] <= 0:
            del self._of_user[user]
