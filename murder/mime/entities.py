"""What `&amp;` and `&#233;` of HTML stand for. Never raises: there is no character of a number of thousands of digits, and
Python makes none of it."""

import html
import re
from typing import Final

_DIGITS: Final = re.compile(r"&#([0-9]{8,}+)")
_MOST_DIGITS: Final = 8  # that count: no character has a number of so many


def unescaped(text: str) -> str:
    """With them as characters; those that are none as U+FFFD, as HTML has it."""
    return html.unescape(_DIGITS.sub(_shortened, text))


def _shortened(match: re.Match[str]) -> str:
    return "&#" + (match[1].lstrip("0")[:_MOST_DIGITS] or "0")
