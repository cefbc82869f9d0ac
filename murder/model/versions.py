"""Which versions of murder may stand beside this one in a murder: written down here, told by the manual's page `upgrade`,
looked at by every node when it meets its master and by `murder ctl status`.

A version is `MAJOR.MINOR.PATCH`; what counts is MAJOR.MINOR. One that is not listed is not refused (a node that waits does
more harm than one that is told something it ignores), but told.
"""

from typing import Final

COMPATIBLE: Final = ("0.1", "0.2")  # this one the last


def line_of(version: str) -> str:
    """What of a version counts; "" where it is none."""
    parts = version.split(".")
    is_version = len(parts) >= 2 and all(part.isascii() and part.isdecimal() for part in parts[:2])
    return ".".join(parts[:2]) if is_version else ""


def misfit(version: str, own: str) -> str:
    """Why a node of that version should not stand beside this one's, for an operator; "" where it may."""
    line = line_of(version)
    if line in COMPATIBLE:
        return ""
    named = version[:40] if line else "an unknown version"
    return f"it is of {named}, and this one, {own}, was tried beside {', '.join(COMPATIBLE)} only: `murder help upgrade`"
