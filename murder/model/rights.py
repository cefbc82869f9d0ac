"""Who may do what in a mailbox, by its row of the list: both roles ask here (RFC 4314)."""

import functools
from collections.abc import Iterable, Iterator
from typing import Final

from murder.errors import Code, Refusal
from murder.model.acl import (
    ADMINISTER,
    ANONYMOUS,
    ANYONE,
    CREATE_CHILD,
    DELETE_MAILBOX,
    LOOKUP,
    OWNER_ALWAYS,
    POST,
    Rights,
    expand_rights,
    identifiers_of,
    rights_granted,
)
from murder.model.entry import MailboxEntry
from murder.model.flag import ANSWERED, ANY_KEYWORD, DELETED, DRAFT, FLAGGED, SEEN
from murder.model.identity import Identity, Login
from murder.model.name import (
    MailboxName,
    Namespace,
    display,
    inbox_of,
    is_below,
    is_deleted,
    is_non_imap,
    owner_of,
    parent_of,
    split_domain,
)
from murder.model.remembered import Remembered

ADMIN_RIGHTS: Final = frozenset({LOOKUP, CREATE_CHILD, DELETE_MAILBOX, ADMINISTER})
FOR_FLAGS: Final = frozenset("stw")  # who has them may change any flag
NEW_RIGHTS: Final = frozenset("kxte")
OLD_RIGHTS: Final = frozenset("cd")
SHORT_ACL_OCTETS: Final = 200
LONG_ACLS_OCTETS: Final = 8 * 1024 * 1024  # a hundred of the longest that a Cyrus passes
RIGHTS_OCTETS: Final = 728  # a set of more than four letters
NO_RIGHTS: Final[Rights] = frozenset()
MANAGED: Final = frozenset({LOOKUP, "r", "i", CREATE_CHILD, DELETE_MAILBOX, ADMINISTER})


def rights_in(entry: MailboxEntry, identity: Identity, is_admin: bool = False) -> Rights:
    """What an identity may do in a mailbox. What rests since it was deleted is an administrator's only, whatever its
    access list says: that is the list of the mailbox it was. So is what holds no mail."""
    if not is_admin and _is_for_administrators(entry.name):
        return NO_RIGHTS
    has_domain = "@" in identity.user or entry.name.count(b"!") > 0
    if has_domain and not _is_of_domain(entry.name, identity.user):
        rights = effective(rights_granted(entry.raw_acl, (identity.user,)))
    else:
        rights = _granted(entry.raw_acl, identity)
    if _owner_of(entry.name) == identity.user:
        rights |= OWNER_ALWAYS
    if is_admin:
        rights |= ADMIN_RIGHTS
    return rights


def of_own_domain(entries: Iterable[MailboxEntry], identity: Identity) -> Iterator[MailboxEntry]:
    """Of what an index by rights tells somebody, what they may know of: in other domains `anyone` and groups are others."""
    domain = identity.user.partition("@")[2].encode("utf-8", "surrogateescape")
    for entry in entries:
        if split_domain(entry.name)[0] == domain or LOOKUP in rights_in(entry, identity):
            yield entry


def takes_mail(entry: MailboxEntry, sender: str = ANONYMOUS) -> bool:
    """Whether mail may be delivered there: always into an INBOX, else with the right `p` of anybody, or of `sender`."""
    name = entry.name
    if is_deleted(name) or is_non_imap(name):
        return False
    owner = owner_of(name)
    if owner is not None and name == inbox_of(owner):
        return True
    return POST in rights_granted(entry.raw_acl, (sender, ANYONE))


_owner_of: Final = functools.lru_cache(maxsize=1024)(owner_of)  # names of the list are short


def _is_for_administrators(name: MailboxName) -> bool:
    return (name.find(b"DELETED") >= 0 and is_deleted(name)) or (
        name.find(b"#") >= 0 and is_non_imap(name)
    )


def _is_of_domain(name: MailboxName, user: str) -> bool:
    """Whether the user is one of those whom `anyone` and groups mean there: each domain is a world of its own, as with
    Cyrus (`crossdomains: no`), and LIST tells nothing of others'. A user that a list names is let in all the same."""
    return split_domain(name)[0] == user.partition("@")[2].encode("utf-8", "surrogateescape")


def _granted(raw_acl: bytes, identity: Identity) -> Rights:
    """By the access list alone. It is asked before every command: most lists are short, and few differ."""
    if len(raw_acl) <= SHORT_ACL_OCTETS:
        return _granted_by_short(raw_acl, identity)
    return _granted_by_long((raw_acl, identity))


def _work_out(raw_acl: bytes, identity: Identity) -> Rights:
    identifiers = identifiers_of(identity.user, identity.groups)
    return effective(rights_granted(raw_acl, identifiers))


_granted_by_short: Final = functools.lru_cache(maxsize=4096)(_work_out)  # 4 MiB at most
_granted_by_long: Final = Remembered[tuple[bytes, Identity], Rights](
    lambda both: _work_out(*both), lambda both, _: len(both[0]) + RIGHTS_OCTETS, LONG_ACLS_OCTETS
)


def effective(rights: Rights) -> Rights:
    """Without the obsolete `c` and `d`: they stand for others in old lists only, else they merely accompany them
    (RFC 4314 §2.1.1)."""
    if rights & NEW_RIGHTS:
        return rights - OLD_RIGHTS
    return expand_rights(rights) - OLD_RIGHTS


def with_old_rights(rights: Rights) -> Rights:
    """With `c` and `d` where one of the rights they stood for is there, for showing (RFC 4314 §2.1.1)."""
    old = {letter for letter, meant in (("c", "kx"), ("d", "xte")) if rights & frozenset(meant)}
    return rights | old


class Missing(Refusal):
    """A mailbox is not here, or must look so. `new_name`: what a RENAME wants it called."""

    def __init__(self, name: MailboxName, text: str, code: Code = Code.NONEXISTENT) -> None:
        super().__init__(code, text)
        self.name = name
        self.new_name: MailboxName | None = None


def nonexistent(namespace: Namespace, name: MailboxName, user: str) -> Missing:
    """The refusal for what is not there, or must look so."""
    return Missing(name, f"No such mailbox: {display(namespace.external(name, user))}")


def check_may_create(
    name: MailboxName, parent: MailboxEntry | None, login: Login, namespace: Namespace
) -> None:
    """`parent` is the nearest mailbox above that exists: `k` in it; in one's own tree always; without a parent,
    administrators only. A parent that the user may not know of is refused as one that is not there. Raises Refusal."""
    if login.is_admin:
        return
    if is_non_imap(name):
        raise Refusal(Code.NO_PERMISSION, "A mailbox for mail has no name that begins with #")
    if parent is not None:
        rights = rights_in(parent, login.identity)
        if CREATE_CHILD in rights:
            return
        if not rights & MANAGED:
            raise nonexistent(namespace, name, login.user)
    elif is_below(name, inbox_of(login.user)) and name != inbox_of(login.user):
        return
    elif parent_of(name) is not None:
        raise nonexistent(namespace, name, login.user)
    raise Refusal(Code.NO_PERMISSION, "You may not create a mailbox there")


def permanent_flags(rights: Rights, read_only: bool) -> frozenset[str]:
    """What a client with these rights may change (RFC 4314 §5.1.1, PERMANENTFLAGS)."""
    if read_only:
        return frozenset()
    flags: set[str] = set()
    if "w" in rights:
        flags |= {ANSWERED, FLAGGED, DRAFT, ANY_KEYWORD}
    if "t" in rights:
        flags.add(DELETED)
    if "s" in rights:
        flags.add(SEEN)
    return frozenset(flags)


def changeable(flags: frozenset[str], rights: Rights) -> frozenset[str]:
    """Those of the flags that these rights let a client set or clear."""
    if rights.issuperset(FOR_FLAGS):
        return flags
    return frozenset([flag for flag in flags if needed_for(flag) in rights])


def needed_for(flag: str) -> str:
    """The right that a flag takes: `s`, `t` or `w`."""
    if flag == SEEN:
        return "s"
    return "t" if flag == DELETED else "w"
