"""Mailbox names: the canonical form, its hierarchy, and the namespace in which a client sees it.

The canonical form is Cyrus's internal one, because MUPDATE carries it: parts joined by `.`, a `.` inside
a part written `^`, modified UTF-7, an optional `domain!` in front, INBOX of user u is `user.u`
(`example.org!user.bovik.Drafts`). What a client sees is made from it by a `Namespace`, both ways, here
and nowhere else. Names stay octets: a real Cyrus may put any octets into the list.
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NewType

from murder.errors import Code, Refusal

MailboxName = NewType("MailboxName", bytes)

MAX_NAME_OCTETS: Final = 490  # Cyrus' MAX_MAILBOX_NAME; an LMDB key holds 511
MAX_EXTERNAL_OCTETS: Final = 2 * MAX_NAME_OCTETS  # with the namespace's prefix and a domain
MAX_DEPTH: Final = 100  # parts; far above any client, far below what a walk could not afford
USER_ROOT: Final = b"user"
DELETED_ROOT: Final = b"DELETED"  # Cyrus' delayed deletes: in the list, never shown to users

# Line and paragraph separators, and the controls of direction (Unicode UAX 9 §2), also the marks; the byte order mark
_HIDDEN: Final = frozenset(
    {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF}
)
_SHIFTS: Final = re.compile(rb"&([^&-]++-?)")  # but "&-", which is "&"
_TWO_SHIFTS: Final = re.compile(rb"&[^&-]++-&[^&-]")

# Any part but a user's own name; also in a collation key
_NON_IMAP: Final = re.compile(rb"(?:\A\xff?|!)#|(?<!\Auser)(?<!!user)[.\x1f]#")

_DOT_AS_FIRST: Final = bytes.maketrans(b".", b"\x1f")
_FIRST_AS_DOT: Final = bytes.maketrans(b"\x1f", b".")
_UNIX_TO_INTERNAL: Final = bytes.maketrans(b"/.", b".^")
_INTERNAL_TO_UNIX: Final = bytes.maketrans(b".^", b"/.")


def collation_key(name: bytes) -> bytes:
    """The order of a Cyrus mailboxes.db: bytes, with `.` below every other printable octet, names with a
    domain behind all others. LIST and UPDATE must be sent in it (a Cyrus backend that sees another order
    deletes mailboxes)."""
    if b"!" in name:
        return b"\xff" + name.translate(_DOT_AS_FIRST)
    return name.translate(_DOT_AS_FIRST)


def name_of_key(key: bytes) -> MailboxName:
    """The reverse of `collation_key`."""
    return MailboxName(key.removeprefix(b"\xff").translate(_FIRST_AS_DOT))


def split_domain(name: bytes) -> tuple[bytes, bytes]:
    """`(domain, rest)`; the domain is empty where there is none."""
    domain, mark, rest = name.partition(b"!")
    return (domain, rest) if mark else (b"", name)


def parent_of(name: MailboxName) -> MailboxName | None:
    """The name one level up, or None at the top (`user` itself is no mailbox: `user.a` has no parent)."""
    domain, rest = split_domain(name)
    head, dot, _ = rest.rpartition(b".")
    if not dot or head == USER_ROOT:
        return None
    return MailboxName(domain + b"!" + head if domain else head)


def ancestors_of(name: MailboxName) -> list[MailboxName]:
    """All names above, nearest first."""
    names = []
    above = parent_of(name)
    while above is not None:
        names.append(above)
        above = parent_of(above)
    return names


def is_below(name: bytes, root: bytes) -> bool:
    """Whether `name` is `root` or a descendant of it."""
    return name == root or name.startswith(root + b".")


def moved(name: MailboxName, old: MailboxName, new: MailboxName) -> MailboxName:
    """`name`, which is `old` or below it, after a rename of `old` to `new`."""
    return MailboxName(new + name[len(old) :])


def inbox_of(user: str) -> MailboxName:
    """The INBOX of a user id (`local` or `local@domain`)."""
    local, _, domain = user.partition("@")
    octets = USER_ROOT + b"." + local.encode("utf-8", "surrogateescape").replace(b".", b"^")
    return MailboxName(domain.encode() + b"!" + octets if domain else octets)


def owner_of(name: MailboxName) -> str | None:
    """The user id whose mailbox this is, or None for a shared one."""
    domain, rest = split_domain(name)
    parts = rest.split(b".", 2)
    if len(parts) < 2 or parts[0] != USER_ROOT or not parts[1]:
        return None
    local = parts[1].replace(b"^", b".").decode("utf-8", "surrogateescape")
    return f"{local}@{domain.decode()}" if domain else local


def is_inbox(name: MailboxName) -> bool:
    """Whether the name is some user's INBOX."""
    _, rest = split_domain(name)
    return rest.count(b".") == 1 and rest.startswith(USER_ROOT + b".")


def is_deleted(name: MailboxName) -> bool:
    """Whether this is the resting place of a delayed delete."""
    return is_below(split_domain(name)[1], DELETED_ROOT)


def is_non_imap(name: bytes) -> bool:
    """Whether the mailbox holds no mail: a part of its name begins with `#` (Cyrus' `#sieve`, `#calendars`, ...). Mail
    clients are never told of such a mailbox, and nothing is delivered there; administrators have it like any other."""
    return b"#" in name and _NON_IMAP.search(name) is not None


def above_deleted(name: bytes) -> MailboxName:
    """Below which all rests that was called so, or was below it, and is deleted: `DELETED.user.anna`."""
    domain, rest = split_domain(name)
    inner = DELETED_ROOT + b"." + rest
    return MailboxName(domain + b"!" + inner if domain else inner)


def deleted_name(name: MailboxName, at: int) -> MailboxName:
    """Where a mailbox that is deleted at that second rests, as Cyrus has it: `DELETED.user.anna.5F3A…`."""
    return MailboxName(b"%s.%X" % (above_deleted(name), at))


def before_deletion(name: MailboxName) -> tuple[MailboxName, int] | None:
    """The reverse: what it was called, and when it was deleted. None where it rests there for another reason."""
    domain, rest = split_domain(name)
    inner, _, stamp = rest[len(DELETED_ROOT) + 1 :].rpartition(b".")
    try:
        at = int(stamp, 16)
    except ValueError:
        return None
    if not inner or not is_deleted(name) or inner.startswith(b"quarantine."):
        return None
    return MailboxName(domain + b"!" + inner if domain else inner), at


def is_quarantined(name: MailboxName) -> bool:
    """Whether it rests because another server has a mailbox of its name: nobody else is to know of it."""
    return split_domain(name)[1].startswith(DELETED_ROOT + b".quarantine.")


def is_of_tree(name: MailboxName, root: MailboxName) -> bool:
    """Whether a mailbox is `root` or below it; also one that rests since it was deleted from there."""
    was = before_deletion(name)
    inner = was[0] if was is not None else name
    return inner == root or is_below(inner, root)


def display(name: bytes) -> str:
    """For logs and people: never raises, loses nothing."""
    return printable(name.decode("utf-8", "backslashreplace"))


def no_such_mailbox(name: bytes) -> Refusal:
    return Refusal(Code.NONEXISTENT, f"No such mailbox: {display(name)}", names=(name,))


def exists_already(name: bytes) -> Refusal:
    return Refusal(Code.ALREADY_EXISTS, f"{display(name)} exists already", names=(name,))


def printable(text: str) -> str:
    """Text that a terminal only shows: what would be hidden, or would do something to it, is written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if is_hidden(letter) else letter for letter in text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def check_name_size(name: MailboxName) -> None:
    """Refuse what is too long to be any mailbox's name."""
    if len(name) > MAX_NAME_OCTETS:
        raise Refusal(
            Code.LIMIT, f"A mailbox name may have {MAX_NAME_OCTETS} octets, not {len(name)}"
        )


def check_existing_name(name: MailboxName) -> None:
    """Refuse what can be no mailbox's name at any server, whatever made it; laxer than `check_new_name`."""
    check_name_size(name)
    parts = split_domain(name)[1].split(b".")
    if not all(parts) or len(parts) > MAX_DEPTH:
        raise Refusal(
            Code.CANNOT, f"A mailbox name has 1 to {MAX_DEPTH} levels, and none of them is empty"
        )
    bad = [octet for octet in name if octet < 0x20 or octet in (0x7F, 0xFF)]
    if bad or name.count(b"!") > 1 or name.startswith(b"!"):
        raise Refusal(Code.CANNOT, f"A mailbox name must not contain {bytes(bad[:1] or b'!')!r}")


def check_new_name(name: MailboxName) -> None:
    """Refuse a name that must not come into being; names that exist already are never judged."""
    check_name_size(name)
    _, rest = split_domain(name)
    parts = rest.split(b".")
    if len(parts) > MAX_DEPTH:
        raise Refusal(Code.LIMIT, f"A mailbox name may have {MAX_DEPTH} levels, not {len(parts)}")
    if not all(parts):
        raise Refusal(Code.CANNOT, "A mailbox name must not have an empty level")
    bad = [octet for octet in name if octet < 0x20 or octet > 0x7E or octet in b"%*!"]
    in_own_tree = name.partition(b"!")[0].startswith(USER_ROOT + b".")  # that is no domain
    if bad and (bad != [0x21] or in_own_tree or not rest):
        raise Refusal(Code.CANNOT, f"A mailbox name must not contain {chr(bad[0])!r}")
    _check_characters(rest)
    if rest == USER_ROOT or parts[0] == DELETED_ROOT:
        raise Refusal(Code.CANNOT, f"{display(rest)} is reserved", names=(rest,))


def _check_characters(name: bytes) -> None:
    """Refuse what modified UTF-7 (RFC 3501 §5.1.3) hides from who looks at octets: characters that are not shown, or change
    what is shown beside them (RFC 6855 §3, RFC 5198 §2), and shifts that some read and others do not."""
    for text in _shifted(name):
        hidden = [letter for letter in text if is_hidden(letter)]
        if hidden:
            raise Refusal(
                Code.CANNOT, f"A mailbox name must not contain the character U+{ord(hidden[0]):04X}"
            )
    if _TWO_SHIFTS.search(name):
        raise Refusal(Code.CANNOT, "A mailbox name is modified UTF-7: two shifts in a row are one")


def check_readable(name: MailboxName, user: str) -> None:
    """Refuse what `user` would read as no modified UTF-7: some clients stop at it in a list. For what need not be a mailbox;
    laxer than `check_new_name`."""
    check_name_size(name)
    own = inbox_of(user)  # what they are called their own lists do not show
    read = name[len(own) :] if is_below(name, own) else name
    bad = [octet for octet in read if octet < 0x20 or octet > 0x7E]
    if bad:
        raise Refusal(Code.CANNOT, f"A mailbox name must not contain {chr(bad[0])!r}")
    for _ in _shifted(split_domain(read)[1]):
        pass


def _shifted(name: bytes) -> Iterator[str]:
    """What is encoded in a name. Raises Refusal where it is not well encoded."""
    for shifted in _SHIFTS.findall(name):
        try:
            yield _unshift(shifted)
        except ValueError:
            written = display(b"&" + shifted)
            raise Refusal(
                Code.CANNOT, f"A mailbox name is modified UTF-7, which {written} is not: & is &-"
            ) from None


def _unshift(shifted: bytes) -> str:
    """What stands between `&` and `-`, the latter included. Raises ValueError unless it is the one form of some text."""
    encoded, end = shifted[:-1], shifted[-1:]
    if end != b"-":
        raise ValueError("it has no end")
    octets = binascii.a2b_base64(encoded.replace(b",", b"/") + b"=" * (-len(encoded) % 4))
    text = octets.decode("utf-16-be")
    again = binascii.b2a_base64(octets, newline=False).rstrip(b"=").replace(b"/", b",")
    if again != encoded or any(" " <= letter <= "~" for letter in text):
        raise ValueError("it has another form")
    return text


def is_hidden(letter: str) -> bool:
    """Whether a character is not shown itself: controls, line ends, what turns the direction of writing, and what is no
    character."""
    code = ord(letter)
    return (
        code < 0x20
        or 0x7F <= code < 0xA0
        or code in _HIDDEN
        or 0xD800 <= code < 0xE000
        or code & 0xFFFE == 0xFFFE
        or 0xFDD0 <= code < 0xFDF0
    )


@dataclass(frozen=True, slots=True)
class Namespace:
    """How clients see names. RFC 2342; Cyrus' `unixhierarchysep` and `altnamespace`.

    Not alternative: own mailboxes below `INBOX`, other users below `user`, shared ones at the top.
    Alternative: own mailboxes at the top, others below `Other Users`, shared below `Shared Folders`.
    With `domains` an `@` in another user's or a shared mailbox's name stands before its domain; who is of that domain
    leaves it out.
    Octets in and out are modified UTF-7 (RFC 3501 §5.1.3); a session that speaks UTF-8 converts before.
    """

    unix_hierarchy: bool = True
    alternative: bool = False
    domains: bool = False

    @property
    def separator(self) -> bytes:
        return b"/" if self.unix_hierarchy else b"."

    @property
    def personal_prefix(self) -> bytes:
        """Of a user's own mailboxes, without the INBOX itself."""
        return b"" if self.alternative else b"INBOX" + self.separator

    @property
    def users_prefix(self) -> bytes:
        """Of what others have shared."""
        return (b"Other Users" if self.alternative else USER_ROOT) + self.separator

    @property
    def shared_prefix(self) -> bytes:
        """Of what is nobody's own."""
        return b"Shared Folders" + self.separator if self.alternative else b""

    def internal(self, external: bytes, user: str) -> MailboxName:
        """The canonical form of what `user` calls `external`.

        Raises Refusal where no mailbox could have that name. One trailing separator is dropped
        (RFC 3501 §6.3.3: it only announces children).
        """
        if len(external) > MAX_EXTERNAL_OCTETS:
            raise Refusal(
                Code.LIMIT,
                f"A mailbox name may have {MAX_NAME_OCTETS} octets, not {len(external)}",
            )
        separator = self.separator
        if separator != external[-1:]:
            stem = external
        else:
            stem = external[:-1]
        if not stem or stem.startswith(separator) or separator * 2 in stem:
            raise Refusal(Code.CANNOT, "A mailbox name must not have an empty level")
        if self.unix_hierarchy and b"^" in stem:
            raise Refusal(Code.CANNOT, "A mailbox name must not contain '^'")
        explicit, domain = self._explicit_domain(stem, user)
        head, mark, tail = explicit.partition(separator)
        if head.upper() == b"INBOX" and (not self.alternative or not mark):
            return MailboxName(inbox_of(user) + (b"." + self.inward(tail) if mark else b""))
        return self._place(explicit, domain, user)

    def _explicit_domain(self, stem: bytes, user: str) -> tuple[bytes, bytes]:
        """Cut `@domain` off `user/name@domain` (an administrator's way to name another domain), and off a shared one.
        Without domains an @ is a letter as any."""
        own = user.partition("@")[2].encode()
        if self.domains and b"@" in stem and not self.is_own(stem):
            rest, _, domain = stem.rpartition(b"@")
            return rest, domain
        return stem, own

    def is_own(self, stem: bytes) -> bool:
        """Whether what a client calls so is the client's own mailbox."""
        if self.alternative:
            return not stem.startswith((self.users_prefix, self.shared_prefix))
        return stem.partition(self.separator)[0].upper() == b"INBOX"

    def _place(self, stem: bytes, domain: bytes, user: str) -> MailboxName:
        users, shared = self.users_prefix, self.shared_prefix
        if stem.startswith(users):
            inner = USER_ROOT + b"." + self.inward(stem[len(users) :])
        elif not self.alternative:
            inner = self.inward(stem)
        elif stem.startswith(shared):
            inner = self.inward(stem[len(shared) :])
        elif stem in (users[:-1], shared[:-1]):
            raise Refusal(
                Code.NONEXISTENT, f"{display(stem)} begins names of mailboxes, and is none"
            )
        else:
            return MailboxName(inbox_of(user) + b"." + self.inward(stem))
        return MailboxName(domain + b"!" + inner if domain else inner)

    def external(self, name: MailboxName, user: str) -> bytes:
        """What `user` calls the mailbox; the reverse of `internal`."""
        own = inbox_of(user)
        if name == own:
            return b"INBOX"
        if name.startswith(own + b"."):
            return self.personal_prefix + self._outward(name[len(own) + 1 :])
        domain, rest = split_domain(name)
        foreign = domain != user.partition("@")[2].encode()
        if rest.startswith(USER_ROOT + b"."):
            written = self.users_prefix + self._outward(rest[len(USER_ROOT) + 1 :])
        else:
            written = self.shared_prefix + self._outward(rest)
        if self.domains and (foreign or b"@" in rest):
            return written + b"@" + domain
        return written

    def inward(self, octets: bytes) -> bytes:
        """A part of an external name in canonical octets (for searching by prefix)."""
        return octets.translate(_UNIX_TO_INTERNAL) if self.unix_hierarchy else octets

    def _outward(self, octets: bytes) -> bytes:
        return octets.translate(_INTERNAL_TO_UNIX) if self.unix_hierarchy else octets
