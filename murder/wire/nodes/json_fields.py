"""A JSON object from another node, field by field: each is judged as it is read, what is not known here is passed over."""

import json
from collections.abc import Mapping
from typing import Final

from murder.errors import BadSyntax
from murder.model.name import MailboxName

_NONE: Final = object()
MOST: Final = 2**63  # of a number: beyond it arithmetic with floats may overflow


class Fields:
    """Every method takes a field's name and raises BadSyntax, which names it: where it is missing (and has no default) or
    not what was asked for."""

    __slots__ = ("_told",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._told = values

    def __contains__(self, key: str) -> bool:
        return key in self._told

    def _field(self, key: str, default: object) -> object:
        value = self._told.get(key, default)
        if value is _NONE:
            raise BadSyntax(f"{key} is missing")
        return value

    def text(self, key: str, default: object = _NONE) -> str:
        """A string."""
        value = self._field(key, default)
        if not isinstance(value, str):
            raise BadSyntax(f"{key} is no text")
        return value

    def integer(self, key: str, default: object = _NONE) -> int:
        """A whole number; true and false are none."""
        value = self._field(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadSyntax(f"{key} is no whole number")
        return value

    def number(self, key: str, default: object = _NONE) -> float:
        """As it was written: 0 stays 0, for who prints it."""
        value = self._field(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadSyntax(f"{key} is no number")
        if not -MOST <= value <= MOST:  # nor is NaN
            raise BadSyntax(f"{key} is out of range")
        return value

    def flag(self, key: str, default: object = _NONE) -> bool:
        """True or false; 0 and 1 are neither."""
        value = self._field(key, default)
        if not isinstance(value, bool):
            raise BadSyntax(f"{key} is neither true nor false")
        return value

    def texts(self, key: str, default: object = _NONE) -> tuple[str, ...]:
        """A list of strings."""
        values = self._field(key, default)
        if not isinstance(values, list | tuple):
            raise BadSyntax(f"{key} is no list")
        for value in values:
            if not isinstance(value, str):
                raise BadSyntax(f"{key} has what is no text")
        return tuple(values)

    def word(self, key: str) -> object:
        """As it is: for who compares it with what there is; None where it is missing."""
        return self._told.get(key)

    def numbers(self, key: str, default: object = _NONE) -> dict[str, float]:
        """An object whose values are numbers."""
        values = self._field(key, default)
        if not isinstance(values, dict):
            raise BadSyntax(f"{key} is no object")
        return {name: Fields(values).number(name) for name in values}

    def mapping(self, key: str) -> Mapping[str, object]:
        """An object, whatever is in it."""
        value = self._field(key, _NONE)
        if not isinstance(value, dict):
            raise BadSyntax(f"{key} is no object")
        return value

    def objects(self, key: str) -> list["Fields"]:
        """A list of objects."""
        values = self._field(key, _NONE)
        if not isinstance(values, list | tuple):
            raise BadSyntax(f"{key} is no list")
        for value in values:
            if not isinstance(value, dict):
                raise BadSyntax(f"{key} has what is no object")
        return [Fields(value) for value in values]

    def rows(self, key: str, size: int) -> list["Fields"]:
        """A list of lists of that size; their fields are called "0", "1" and so on."""
        rows = self._field(key, _NONE)
        if not isinstance(rows, list | tuple):
            raise BadSyntax(f"{key} is no list")
        for row in rows:
            if not isinstance(row, list | tuple) or len(row) != size:
                raise BadSyntax(f"{key} has what is no list of {size}")
        return [Fields({str(at): value for at, value in enumerate(row)}) for row in rows]

    def name(self, key: str, default: object = _NONE) -> MailboxName:
        """A mailbox's name, a character for each octet."""
        return _name(key, self.text(key, default))

    def names(self, key: str, default: object = _NONE) -> tuple[MailboxName, ...]:
        """A list of mailboxes' names, as `name`."""
        return tuple(_name(key, text) for text in self.texts(key, default))


def _name(key: str, text: str) -> MailboxName:
    try:
        return MailboxName(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise BadSyntax(f"{key} is no mailbox's name") from None


def parse_fields(octets: bytes) -> Fields:
    """Of a JSON object. Raises BadSyntax."""
    try:
        values = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise BadSyntax(f"not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadSyntax("a JSON object was expected")
    return Fields(values)
