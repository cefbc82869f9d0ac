"""Plugins that relay or refer."""

from typing import Final

from murder.api.contract.decide import REFERRAL_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
from dataclasses import dataclass, field

from murder.api import Conduct, ReferralQuestion, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    network: str = field(
        default="10.1.", metadata={"doc": "Clients whose address begins so are referred."}
    )  # 1. Your own keys.


@hookimpl
def relay_or_refer(settings: Settings, question: ReferralQuestion) -> Conduct | None:
    """Relay a command, or send the client to the backend; None to let the next plugin of `use` decide."""
    # 2. question.command, .entry (the mailbox), .user, .is_admin, .peer (the client's address), and .referrals_on:
    #    whether the client has shown that it follows referrals. Hardly any other does.
    if not question.referrals_on:
        return Conduct.RELAY
    return Conduct.REFER if question.peer.startswith(settings.network) else None
'''
REFERRAL: Final = Kind(
    "referral",
    "relay_or_refer",
    "Referrals: which commands are relayed, which clients are sent to the backend.",
    REFERRAL_CHECKS,
    TEMPLATE,
)
