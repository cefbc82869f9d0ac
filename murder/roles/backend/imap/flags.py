"""How the flags of messages are told to one session: formatted once a set, new keywords announced first.

RFC 3501 §7.2.6: FLAGS names the flags that may occur in the mailbox, so a keyword that shows up later is announced
before the FETCH that has it.
"""

from typing import Final

from murder.api.store import Mailbox
from murder.model.flag import (
    ANY_KEYWORD,
    RECENT,
    SYSTEM_FLAGS,
    in_order,
    is_keyword,
)
from murder.roles.backend.changes.powers import TELLS_KEYWORDS
from murder.wire.imap.flag import format_flags
from murder.wire.imap.response import status_line, untagged

# of one mailbox are named at SELECT: some 20 kB, and more than any client shows
MOST_KEYWORDS: Final = 1000
KEPT_FORMS: Final = 512  # different sets of flags in one mailbox; more are formatted anew
# a longer one is made each time: a message may have a thousand keywords
KEPT_FORM_OCTETS: Final = 512


LONG_FORMS: Final = 32  # of those that are told in one go


class FlagForms:
    """The flags of one selected mailbox as this session's client knows them."""

    __slots__ = ("_fresh", "_permanent", "formed", "formed_recent", "keywords", "tells_recent")

    def __init__(self, permanent: frozenset[str], tells_recent: bool = True) -> None:
        self.tells_recent = tells_recent
        self.keywords: set[str] = set()
        self._permanent = permanent
        # what `form` has made, of other messages and of recent ones: for who has many
        self.formed: dict[frozenset[str], bytes] = {}
        self.formed_recent: dict[frozenset[str], bytes] = {}
        self._fresh = False

    def form(self, flags: frozenset[str], is_recent: bool = False) -> bytes:
        """`(\\Seen …)`. Ask `fresh_words` before sending it."""
        forms = self.formed_recent if is_recent else self.formed
        known = forms.get(flags)
        if known is not None:
            return known
        new = {flag for flag in flags if is_keyword(flag)} - self.keywords
        if new and len(self.keywords) < MOST_KEYWORDS:  # each announcement names them all
            self.keywords |= new
            self._fresh = True
        tells = is_recent and self.tells_recent
        made = format_flags(flags | {RECENT} if tells else flags)
        if len(made) <= KEPT_FORM_OCTETS:
            if len(forms) >= KEPT_FORMS:
                forms.clear()
            forms[flags] = made
        return made

    def learn(self, keywords: frozenset[str]) -> bool:
        """As if they were in the next flags. False where so many are announced already that some of these may never be."""
        if not keywords <= self.keywords:
            if len(self.keywords) + len(keywords) > MOST_KEYWORDS:
                return False
            self.keywords |= keywords
            self._fresh = True
        return True

    def fresh_words(self) -> bytes:
        """The FLAGS response that has to come before what was formatted since; most often nothing."""
        if not self._fresh:
            return b""
        self._fresh = False
        return self.announcement()

    def announcement(self) -> bytes:
        """`* FLAGS …` and `* OK [PERMANENTFLAGS …]`."""
        keywords = sorted(self.keywords)
        permanent = in_order(self._permanent & set(SYSTEM_FLAGS))
        if ANY_KEYWORD in self._permanent:
            permanent += [*keywords, ANY_KEYWORD]
        code = b"PERMANENTFLAGS (" + " ".join(permanent).encode("ascii", "replace") + b")"
        return untagged(b"FLAGS " + format_flags([*SYSTEM_FLAGS, *keywords])) + status_line(
            b"*", b"OK", "Flags that you may keep", code
        )


async def known_keywords(mailbox: Mailbox) -> set[str]:
    """The keywords that FLAGS names at SELECT (RFC 3501 §7.2.6); such as come later are announced when they do."""
    telling = TELLS_KEYWORDS.of(mailbox)
    if telling is None:
        return set()
    return set(sorted(await telling.keywords())[:MOST_KEYWORDS])
