"""What a referral policy sees and says: relay a command, or send the client to the backend (RFC 2193)."""

from dataclasses import dataclass
from enum import Enum

from murder.model.entry import MailboxEntry


class Conduct(Enum):
    """The two things a frontend can do with a command for a mailbox elsewhere."""

    RELAY = "relay"
    REFER = "refer"


@dataclass(frozen=True, slots=True)
class ReferralQuestion:
    """A command that could be referred. `referrals_on`: the client has used RLIST or RLSUB (RFC 2193 §3)."""

    command: str
    entry: MailboxEntry
    user: str
    is_admin: bool
    referrals_on: bool
    peer: str
