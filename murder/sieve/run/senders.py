"""Whose address stands in the envelope of what a script sends, as the site has decided."""

from murder.sieve.check.spec import Suspended
from murder.sieve.questions import OwnAddresses
from murder.sieve.run.machine import Machine


def envelope_sender(machine: Machine, choice: str) -> Suspended:
    """Empty for the null sender: always, where the message itself came from there, so that no two servers tell each
    other of failures for ever."""
    envelope = machine.envelope
    if choice == "null" or envelope.sender == "":
        return ""
    match choice:
        case "sender":
            return envelope.sender or ""
        case "recipient":
            return envelope.recipient or ""
        case "original":
            return envelope.original or envelope.recipient or ""
        case "user":
            own = yield OwnAddresses()
            return own[0] if own else envelope.recipient or ""
        case "postmaster":
            return f"postmaster@{machine.circumstances.host}"
        case _:
            return choice.strip("<>")
