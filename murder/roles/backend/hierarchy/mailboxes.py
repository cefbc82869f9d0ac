"""The mailboxes of this backend and who may do what in them: the local list, rights, opening.

IMAP, POP3 and LMTP share it. The list says what exists and who may see it; the store keeps messages only. RFC 4314.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from murder.api.store import Mailbox, MailboxStore
from murder.errors import Code, Refusal
from murder.model.acl import (
    ANONYMOUS,
    LOOKUP,
    OWNER_RIGHTS,
    Acl,
    Rights,
    format_acl,
)
from murder.model.entry import EntryState, MailboxEntry
from murder.model.identity import Login
from murder.model.name import (
    MailboxName,
    Namespace,
    ancestors_of,
    owner_of,
)
from murder.model.rights import (
    MANAGED,
    Missing,
    check_may_create,
    nonexistent,
    rights_in,
    takes_mail,
)
from murder.roles.mupdate.database.mboxlist import MailboxList
from murder.roles.mupdate.database.record import ACTIVE, FLAGS_AT, Head

SHARED_DEFAULT: Final = b"anyone\tlrs\t"  # Cyrus' `defaultacl: anyone lrs`


@dataclass(frozen=True, slots=True)
class Accessible:
    """A mailbox that somebody may use, with what they may do in it."""

    entry: MailboxEntry
    rights: Rights

    @property
    def name(self) -> MailboxName:
        return self.entry.name


class Mailboxes:
    """See the module. Reading the list takes microseconds and is done in the event loop."""

    def __init__(
        self,
        mailbox_list: MailboxList,
        store: MailboxStore,
        namespace: Namespace,
        shared_acl: bytes = SHARED_DEFAULT,
        has_left: Callable[[MailboxName], bool] = lambda _: False,
        row_of_left: Callable[[MailboxName], MailboxEntry | None] = lambda _: None,
        is_whole: Callable[[], bool] = lambda: True,
    ) -> None:
        self._shared_acl = shared_acl
        self.list = mailbox_list
        self.store = store
        self.namespace = namespace
        # of what has just left for another server: who asks here has an old list
        self.has_left = has_left
        self._row_of_left = row_of_left  # as it was, where that is known
        self._is_whole = is_whole  # not where the master knows of mailboxes that have been lost

    def find(self, name: MailboxName) -> MailboxEntry | None:
        """The row of a mailbox that exists here (one that is just being made does not)."""
        entry = self.list.find(name)
        return entry if entry is not None and entry.state is EntryState.ACTIVE else None

    def is_here(self, name: MailboxName) -> bool:
        """Whether there is one, in fewer steps."""
        row = self.list.row(name)
        return row is not None and row[FLAGS_AT] & ACTIVE != 0

    # --- rights

    def rights(self, entry: MailboxEntry, login: Login) -> Rights:
        """All that somebody may do. Owners keep `l` and `a`; administrators have the hierarchy, not the mail."""
        return rights_in(entry, login.identity, login.is_admin)

    def look(self, name: MailboxName, login: Login) -> Accessible:
        """A mailbox as somebody sees it. Raises Refusal(NONEXISTENT) also where they may not know of it."""
        entry = self.find(name)
        if entry is not None:
            rights = self.rights(entry, login)
            if rights & MANAGED:
                return Accessible(entry, rights)
        self.check_has_not_left(name, login)
        raise nonexistent(self.namespace, name, login.user)

    def check_has_not_left(self, name: MailboxName, login: Login | None = None) -> None:
        """Raises Refusal(UNAVAILABLE) for what is at another server since lately: that it does not exist would be wrong.
        To a user who could not know of it here, it is. And for whatever is missing on a server that has lost its disk: mail
        for it waits at the sender."""
        if self.find(name) is not None:
            return
        if not self._is_whole():
            text = "This server does not have all its mailboxes yet: try again later"
            raise Missing(name, text, Code.UNAVAILABLE)
        if not self.has_left(name):
            return
        # its owner's at least
        left = self._row_of_left(name) or MailboxEntry(name, EntryState.ACTIVE, b"")
        if login is None or self.rights(left, login) & MANAGED:
            text = "This mailbox has moved to another server: try again in a moment"
            raise Missing(name, text, Code.UNAVAILABLE)

    def require(self, name: MailboxName, login: Login, needed: str) -> Accessible:
        """As `look`, and they must have all of these rights: Refusal(NO_PERMISSION) where they only may know of it."""
        accessible = self.look(name, login)
        missing = frozenset(needed) - accessible.rights
        if missing:
            if LOOKUP not in accessible.rights:
                raise nonexistent(self.namespace, name, login.user)
            raise Refusal(
                Code.NO_PERMISSION,
                f"You lack the right {''.join(sorted(missing))} in this mailbox",
            )
        return accessible

    async def open_for(
        self, name: MailboxName, login: Login, needed: str
    ) -> tuple[Mailbox, Accessible]:
        """Open a mailbox for somebody who has these rights in it. Raises Refusal."""
        accessible = self.require(name, login, needed)
        return await self.store.open(name, login.user), accessible

    def may_post(self, name: MailboxName, sender: str = ANONYMOUS) -> bool:
        """Whether mail may be delivered into it, here."""
        entry = self.find(name)
        return entry is not None and takes_mail(entry, sender)

    def check_takes_mail(self, name: MailboxName) -> None:
        """Where `may_post` says no. Raises Refusal: NO_PERMISSION for a mailbox that is there, UNAVAILABLE as
        `check_has_not_left`; returns where there is none."""
        self.check_has_not_left(name)
        if self.find(name) is not None:
            raise Refusal(Code.NO_PERMISSION, "Nobody may post to this mailbox")

    # --- listing

    def visible(self, login: Login, prefixes: Sequence[bytes]) -> Iterator[MailboxEntry]:
        """What somebody may see below these prefixes, in collation order."""
        return self.list.shown_to(login, prefixes, has_domains=self.namespace.domains)

    def below(self, name: MailboxName) -> Iterator[Head]:
        """All mailboxes below one, not itself."""
        return (head for head in self.list.heads_below(name) if head.is_active)

    def rows_below(self, name: MailboxName) -> Iterator[MailboxEntry]:
        """As `below`, with their access lists, which may be long: not to be read in one turn."""
        return (entry for entry in self.list.below(name) if entry.is_active)

    def has_children(self, name: MailboxName) -> bool:
        """Whether there is any mailbox below it here."""
        return next(self.below(name), None) is not None

    # --- making

    def parent(self, name: MailboxName) -> MailboxEntry | None:
        """The nearest mailbox above that exists."""
        for above in ancestors_of(name):
            entry = self.find(above)
            if entry is not None:
                return entry
        return None

    def check_may_create(self, name: MailboxName, login: Login) -> None:
        """`k` in the parent; in one's own tree always; without a parent, administrators only. Raises Refusal."""
        check_may_create(name, self.parent(name), login, self.namespace)

    def default_acl(self, name: MailboxName) -> bytes:
        """A new mailbox's access list: its parent's; without one, the owner's, or what the configuration says."""
        parent = self.parent(name)
        if parent is not None:
            return parent.raw_acl
        owner = owner_of(name)
        if owner is not None:
            return format_acl(Acl({owner: OWNER_RIGHTS}))
        return self._shared_acl
