"""Comparators: RFC 4790, RFC 5051. Two texts are equal, and one contains another, if their folded forms do so.

Folding is done in pieces, so that a thread that folds a long text can be interrupted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from murder.mime.text import fold as fold_unicode

PIECE: Final = 64 * 1024  # characters folded at once
INFINITE: Final = float("inf")  # what is no number, for i;ascii-numeric


@dataclass(frozen=True, slots=True)
class Comparator:
    """`fold` gives the form that is compared, `order` what is put in order by. `finds`: whether it looks within texts."""

    name: str
    fold: Callable[[str], str]
    order: Callable[[str], object]
    finds: bool = True
    keeps_length: bool = True  # the folded text has as many characters, at the same places
    is_ascii: bool = False  # it is i;ascii-casemap, which nearly every test has


def _as_it_is(text: str) -> str:
    return text


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def fold_ascii(text: str) -> str:
    """Letters A to Z as a to z, all else as it is."""
    if len(text) <= PIECE:
        return text.lower() if text.isascii() else _fold_ascii(text)
    return "".join(_fold_ascii(text[at : at + PIECE]) for at in range(0, len(text), PIECE))


def _fold_ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _order_ascii(text: str) -> bytes:
    return _octets(text).upper()  # RFC 4790 §9.2.1: capitals stand before `_`


def number_of(text: str) -> tuple[float, str]:
    """The digits a text begins with, as something that is in the order of the numbers (RFC 4790 §9.1)."""
    end = 0
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    if not end:
        return INFINITE, ""
    digits = text[:end].lstrip("0")
    return float(len(digits)), digits


def _number(text: str) -> str:
    size, digits = number_of(text)
    return "not a number" if size == INFINITE else digits


def _fold_unicode(text: str) -> str:
    return fold_unicode(text)


COMPARATORS: Final = {
    comparator.name: comparator
    for comparator in (
        Comparator("i;octet", _as_it_is, _octets),
        Comparator("i;ascii-casemap", fold_ascii, _order_ascii, is_ascii=True),
        Comparator("i;ascii-numeric", _number, number_of, finds=False),
        Comparator("i;unicode-casemap", _fold_unicode, _fold_unicode, keeps_length=False),
    )
}
DEFAULT: Final = "i;ascii-casemap"
IMPLIED: Final = frozenset({"i;octet", "i;ascii-casemap"})  # RFC 5228 §2.7.3: without `require`
# Scripts that come from Pigeonhole 2.4 may have it without: there it belongs to the core
TOLERATED: Final = frozenset({"i;unicode-casemap"})
