"""How many connections a user has at once, of all protocols that they log in with, in all workers."""

from murder.errors import Code, Refusal
from murder.net.shared_counter import SharedCounter


class ConnectionLimit:
    """See the module. `most` is the limit, 0 for none; the hot path asks the `counter` itself."""

    def __init__(self, most: int = 0, counter: SharedCounter | None = None) -> None:
        self.most = most
        self.counter = counter or SharedCounter()

    def configure(self, most: int) -> None:
        self.most = most
        if most:
            self.counter.publish()

    def enter(self, user: str) -> None:
        """One more. Raises Refusal(LIMIT)."""
        if not self.counter.enter(user, self.most):
            raise Refusal(
                Code.LIMIT, f"{user} has {self.most} connections, and may not have more here"
            )

    def leave(self, user: str) -> None:
        self.counter.leave(user)
