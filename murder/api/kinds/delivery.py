"""Plugins that say what becomes of a message that arrives."""

from typing import Final

from murder.api.contract.delivery import DELIVERY_CHECKS
from murder.api.kinds.kind import Kind

TEMPLATE: Final = '''
from collections.abc import Sequence
from dataclasses import dataclass, field

from murder.api import Arriving, DeliveryAction, FileInto, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [plugins.@MODULE@] of murder.toml; a key that is not here is refused at the start."""

    folder: str = field(
        default="INBOX/Junk", metadata={"doc": "Where messages go that are marked as spam."}
    )  # 1. Your own keys.


class @CLASS@:
    """What becomes of messages. One object in each worker process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def decide(self, message: Arriving) -> Sequence[DeliveryAction] | None:
        """What is to be done with it; None to let the next filter of `use` say, and where none does it is kept."""
        # 2. message.sender, .recipient, .user (None: a mailbox of nobody), .mailbox and .octets say what has come. Whatever
        #    you raise here is "try again later" to the sender; murder.errors.Refusal says it in your words.
        header = bytes(message.octets[:65_536]).partition(b"\\r\\n\\r\\n")[0].lower()
        if message.user is not None and b"\\r\\nx-spam-flag: yes" in b"\\r\\n" + header:
            # 3. Keep(flags), FileInto(mailbox, flags, create), Discard(), Reject(text); several of them, too.
            return [FileInto(self.settings.folder, frozenset({"$Junk"}), create=True)]
        return None


@hookimpl
def make_delivery_filter(settings: Settings) -> @CLASS@:
    """Called once in each process of a backend, at the start."""
    return @CLASS@(settings)
'''
DELIVERY: Final = Kind(
    "delivery",
    "make_delivery_filter",
    "Delivery: what becomes of a message that arrives.",
    DELIVERY_CHECKS,
    TEMPLATE,
    role="backend",
    makes=True,
    methods=("decide",),
)
