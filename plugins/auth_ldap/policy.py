"""What a directory says of an account beside yes and no: it has expired, it is locked.

Active Directory says so in the text of a failed bind; OpenLDAP and 389-ds in a control (draft-behera-ldap-password-policy),
389-ds in a text, too. Whether the password was right all the same is part of it: only then the user is told, else it would
tell who guesses which accounts there are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from murder.errors import Code
from plugins.auth_ldap import ber
from plugins.auth_ldap.messages import INVALID_CREDENTIALS, SUCCESS, Result

CONTROL: Final = b"1.3.6.1.4.1.42.2.27.8.5.1"
_EXPIRED, _LOCKED, _MUST_CHANGE = 0, 1, 2
_CONSTRAINT, _UNWILLING = 19, 53
_OF_WINDOWS: Final = re.compile(r"AcceptSecurityContext error, data ([0-9a-f]{2,4})")


@dataclass(frozen=True, slots=True)
class Verdict:
    """In words for the user, if `is_right`: the password is; else for the log."""

    text: str
    code: Code
    is_right: bool


PASSWORD_EXPIRED: Final = Verdict("Your password has expired: set a new one", Code.EXPIRED, True)
MUST_CHANGE: Final = Verdict(
    "Your password must be changed before you can log in", Code.EXPIRED, True
)
LOCKED: Final = Verdict("the account is locked", Code.CONTACT_ADMIN, False)
DISABLED: Final = Verdict("the account is disabled", Code.CONTACT_ADMIN, False)
WINDOWS: Final[Mapping[str, Verdict]] = MappingProxyType(
    {
        "530": Verdict("You may not log in at this time", Code.CONTACT_ADMIN, True),
        "531": Verdict("You may not log in from here", Code.CONTACT_ADMIN, True),
        "532": PASSWORD_EXPIRED,
        "533": Verdict("Your account is disabled", Code.CONTACT_ADMIN, True),
        "701": Verdict("Your account has expired", Code.EXPIRED, True),
        "773": MUST_CHANGE,
        "775": LOCKED,
    }
)


def verdict_of(result: Result) -> Verdict | None:
    """What a bind's result says beside yes and no; None: nothing."""
    error = _error_in(result.control(CONTROL))
    if error == _MUST_CHANGE and result.code == SUCCESS:
        return MUST_CHANGE
    if result.code == SUCCESS:
        return None
    if error == _LOCKED:
        return LOCKED
    text = result.text.lower()
    if result.code == INVALID_CREDENTIALS:
        match = _OF_WINDOWS.search(result.text)
        if match is not None:
            return WINDOWS.get(match[1])
        return PASSWORD_EXPIRED if error == _EXPIRED or "password expired" in text else None
    if result.code == _CONSTRAINT:
        return LOCKED
    return DISABLED if result.code == _UNWILLING and "inactivated" in text else None


def _error_in(value: bytes) -> int | None:
    """Of a PasswordPolicyResponseValue: SEQUENCE { warning [0] OPTIONAL, error [1] ENUMERATED OPTIONAL }."""
    try:
        tag, content, _ = ber.read(value)
        if tag != ber.SEQUENCE:
            return None
        return next(
            (ber.number(octets) for kind, octets in ber.elements(content) if kind == 0x81), None
        )
    except (ber.Malformed, IndexError):
        return None
