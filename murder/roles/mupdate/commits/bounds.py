"""What one peer may put into the master's list, however it came by its key.

Bounds of a row are looked at when it comes, those of all that a server has inside the transaction that would put the row
there. Administrators are not bound: whoever repairs a list must be able to.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from murder.config import MupdateConfig
from murder.errors import Code, Refusal
from murder.model.entry import MailboxEntry
from murder.model.name import collation_key
from murder.roles.mupdate.database.holding import Holding, weight
from murder.roles.mupdate.database.record import SEQ_OCTETS, octets_of, pack_row

# an identifier takes two of the list, and with a long name 520 of the index
_OCTETS_BY_ACL: Final = 260
_COMMIT_MAILBOXES: Final = 50_000  # more than a commit can bring (`waiting`),
_COMMIT_OCTETS: Final = 256 << 20  # with access lists of one long identifier each
_OCTETS_BESIDE: Final = 4096  # name and location, several times


class Held(Protocol):
    """One moment of the list, with what is being changed in it."""

    def held_by(self, server: bytes) -> Holding: ...

    def servers(self) -> int:
        """How many have mailboxes."""
        ...

    def row(self, key: bytes) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Octets and identifiers of an access list; mailboxes and octets of a server; servers."""

    acl_octets: int
    identifiers: int
    mailboxes: int
    octets: int
    servers: int

    def check_acl(self, raw_acl: bytes) -> None:
        """Raises Refusal(LIMIT)."""
        octets = len(raw_acl)
        if octets > self.acl_octets:
            raise Refusal(
                Code.LIMIT,
                f"An access list may have {self.acl_octets} octets here, not {octets} "
                "(mupdate.max_acl_bytes)",
            )
        identifiers = (raw_acl.count(b"\t") + 1) // 2
        if identifiers > self.identifiers:
            raise Refusal(
                Code.LIMIT,
                f"An access list may have {self.identifiers} identifiers here, not {identifiers} "
                "(mupdate.max_acl_identifiers)",
            )

    def check_room(self, held: Held, wanted: MailboxEntry) -> bool:
        """Raises Refusal(LIMIT) where the row would be too much for its server. One that becomes smaller is not. True where
        the server has room for all that one commit can bring."""
        server = wanted.server
        present = held.held_by(octets_of(server))
        if 0 < present.mailboxes <= self.mailboxes - _COMMIT_MAILBOXES:
            if present.octets <= self.octets - _COMMIT_OCTETS:
                return True  # nearly always
        most = present.octets + len(wanted.raw_acl) * _OCTETS_BY_ACL + _OCTETS_BESIDE
        if 0 < present.mailboxes < self.mailboxes and most <= self.octets:
            return False
        key = collation_key(wanted.name)
        new = bytes(SEQ_OCTETS) + pack_row(
            wanted.name, wanted.state, wanted.raw_location, wanted.raw_acl
        )
        old = held.row(key)
        more = weight(key, new) - (0 if old is None else weight(key, old))
        if more <= 0:
            return False
        if old is None and present.mailboxes >= self.mailboxes:
            raise Refusal(
                Code.LIMIT,
                f"{server} has {present.mailboxes} mailboxes, and no server may have more here "
                "(mupdate.max_mailboxes_per_server)",
            )
        if present.octets + more > self.octets:
            raise Refusal(
                Code.LIMIT,
                f"The mailboxes of {server} take {present.octets} octets of the list, and no server's may take more than "
                f"{self.octets} (mupdate.max_bytes_per_server)",
            )
        if not present.mailboxes and held.servers() >= self.servers:
            raise Refusal(
                Code.LIMIT,
                f"The list has mailboxes of {self.servers} servers, and may have those of no more "
                "(mupdate.max_servers)",
            )
        return False


def bounds_of(config: MupdateConfig) -> Bounds:
    return Bounds(
        config.max_acl_bytes,
        config.max_acl_identifiers,
        config.max_mailboxes_per_server,
        config.max_bytes_per_server,
        config.max_servers,
    )
