"""How far the stores of the backends have come, as they tell it themselves (`EPOCH`, our extension): one number a server,
which only grows. A backend whose store was put back from an older copy learns of it here.
"""

from collections.abc import Callable
from typing import Final

from murder.errors import Code, Refusal
from murder.roles.mupdate.commits.proposal import Peer
from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.transaction import ListTransaction
from murder.wire.mupdate import Command

MAX_SERVER_OCTETS: Final = 255  # a host name
MAX_DIGITS: Final = 18
MAX_NOTES: Final = 10_000  # servers that ever were; whoever shares an account may name any


def epoch_work(command: Command, peer: Peer) -> Callable[[ListTransaction], str]:
    """What `EPOCH server number` does: keep the larger one, and tell it as the text of the OK. Raises Refusal."""
    raw_server, digits = command.args
    server = raw_server.decode("ascii", "replace").lower()
    if not 0 < len(raw_server) <= MAX_SERVER_OCTETS or not server.isprintable():
        raise Refusal(Code.CANNOT, "EPOCH begins with the name of a server")
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        raise Refusal(Code.CANNOT, f"EPOCH takes a number of at most {MAX_DIGITS} digits")
    if peer.is_bound and peer.servers and server not in peer.servers:
        raise Refusal(Code.NO_PERMISSION, f"{peer.name} may not speak for the server {server}")
    key, number = f"epoch/{server}", int(digits)

    def work(transaction: ListTransaction) -> str:
        noted = transaction.note(key)
        if noted is None and transaction.notes() >= MAX_NOTES:
            raise Refusal(
                Code.LIMIT, f"The list keeps the numbers of {MAX_NOTES} servers, and no more"
            )
        known = int(noted or 0)
        if number > known:
            transaction.apply(PutNote(key, digits))
        return str(max(known, number))

    return work
