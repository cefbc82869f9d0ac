"""Every key of `[expiry."NAME"]`: what is removed, or sent to the archive, by its age. As `config.sections`."""

from dataclasses import dataclass
from typing import Literal

from murder.config.value import option, required


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """Backends: mail that is removed by its age, once a day; of several rules for one mailbox each does its part, in the
    order of the file. `murder ctl expire` shows what they would do today. Any NAME, as many as are wanted."""

    mailboxes: str = required(
        "Which, by their names as administrators see them, with * and %.",
        example='"user/*"',
    )
    after_days: float = required("The age from which mail goes.", example="30")
    special_use: str = option(
        "", "Only mailboxes that are this to their owner.", example='"\\\\Trash"'
    )
    by: Literal["saved", "received"] = option(
        "saved",
        "The age counts from when the message came into this mailbox, also by a MOVE, or from when it was received.",
    )
    action: Literal["expunge", "archive"] = option(
        "expunge",
        "`expunge` removes it (`backend.expunged_keep_s` keeps it a while longer); `archive` moves it to the mailbox that "
        "is the owner's \\Archive, where there is one on the same backend.",
    )
    keep_flagged: bool = option(True, "What is \\Flagged stays.")
    keep_unseen: bool = option(False, "What its owner has not seen stays.")
