"""What a frontend can promise: the words that it carries and that every backend of the list offers (RFC 3501 §6.1.1).

A word of a backend is known from the last login there; a session's login asks those that nobody has been at yet.
"""

from collections.abc import Collection, Mapping
from typing import Final

# Done here, whatever the backends are
OWN: Final = tuple(
    b"""
    IMAP4rev1 CHILDREN COMPRESS=DEFLATE ENABLE ID IDLE LITERAL+ MAILBOX-REFERRALS NAMESPACE UNAUTHENTICATE
    """.split()
)
# Carried where all backends offer it
CARRIED: Final = tuple(
    b"""
    ACL BINARY CATENATE CONDSTORE CONTEXT=SEARCH CONTEXT=SORT CREATE-SPECIAL-USE ESEARCH ESORT IMAP4rev2 INPROGRESS
    LIST-EXTENDED LIST-METADATA LIST-MYRIGHTS LIST-STATUS METADATA MOVE MULTIAPPEND NOTIFY OBJECTID PARTIAL PREVIEW
    QRESYNC QUOTA QUOTA=RES-MAILBOX QUOTA=RES-MESSAGE QUOTA=RES-STORAGE QUOTASET REPLACE SAVEDATE SEARCHRES
    SORT SORT=DISPLAY SPECIAL-USE STATUS=SIZE THREAD=ORDEREDSUBJECT THREAD=REFERENCES UIDONLY UIDPLUS UNSELECT
    URLAUTH URLAUTH=BINARY UTF8=ACCEPT WITHIN XLIST
    """.split()
)
BASE: Final = frozenset({b"ACL", b"MOVE", b"UIDPLUS", b"UNSELECT"})  # before any backend is known
KNOWN_S: Final = 300.0  # then a login asks again
ASK_AGAIN_S: Final = 30.0  # a backend that did not tell
MAX_DIGITS: Final = 20
RIGHTS: Final = b"RIGHTS="
APPENDLIMIT: Final = b"APPENDLIMIT="
# RFC 6785 §2.1: with where its scripts are kept, for a client of a frontend there
IMAPSIEVE: Final = b"IMAPSIEVE="


class Capabilities:
    """One a worker. `learn` is told what a backend offers each time somebody has logged in there."""

    def __init__(self, append_limit: int, own_name: str) -> None:
        self._append_limit = append_limit
        self._own_name = own_name
        self.offered: dict[str, frozenset[bytes]] = {}  # by server, in upper case, as it was last
        self.current: tuple[bytes, ...] | None = None  # `words`, while they are known

    def learn(self, server: str, offered: frozenset[bytes]) -> None:
        """`offered` in upper case."""
        known = self.offered.get(server)
        if known is not offered:
            self.offered[server] = offered
            if known != offered:
                self.current = None

    def of(self, server: str) -> frozenset[bytes]:
        """What a backend offered last, in upper case."""
        return self.offered.get(server, frozenset())

    def unknown_of(self, servers: Collection[str]) -> list[str]:
        """Those that nobody has logged in to yet. What no longer is a server is forgotten."""
        for gone in self.offered.keys() - servers:
            del self.offered[gone]
            self.current = None
        return [server for server in servers if server not in self.offered]

    def words(self) -> tuple[bytes, ...]:
        """All that is true for every backend, IMAP4rev1 first, else by name."""
        if self.current is None:
            first, *others = OWN
            words = [*others, *self._carried()]
            self.current = (first, *sorted(words, key=bytes.upper))
        return self.current

    def _carried(self) -> list[bytes]:
        offered: Mapping[str, frozenset[bytes]] = self.offered
        common = frozenset.intersection(*offered.values()) if offered else BASE
        carried = [word for word in CARRIED if word.upper() in common]
        rights = [_rights_of(words) for words in offered.values()]
        if rights and all(rights):
            shared = frozenset.intersection(*rights)
            letters = bytes(letter for letter in b"kxten" if letter in shared)
            if letters:
                carried.append(RIGHTS + letters)
        if offered and all(
            any(word.startswith(IMAPSIEVE) for word in words) for words in offered.values()
        ):
            carried.append(IMAPSIEVE + b"sieve://" + self._own_name.encode())
        carried.append(b"%s%d" % (APPENDLIMIT, self._smallest_limit()))
        return carried

    def _smallest_limit(self) -> int:
        """RFC 7889: of all backends that name one, and ours."""
        named = (
            word[len(APPENDLIMIT) :]
            for words in self.offered.values()
            for word in words
            if word.startswith(APPENDLIMIT)
        )
        return min([self._append_limit, *(int(number) for number in named if _is_number(number))])


class Maildrops:
    """What the backends offer by POP3 (RFC 2449), as each said it last; one a worker."""

    def __init__(self) -> None:
        self.offered: dict[str, tuple[frozenset[bytes], float]] = {}  # and when
        self._asked: dict[str, float] = {}

    def learn(self, server: str, words: frozenset[bytes], now: float) -> None:
        """What CAPA has told there, at this time."""
        self.offered[server] = (words, now)

    def forget(self, server: str) -> None:
        self.offered.pop(server, None)

    def is_known(self, server: str, now: float) -> bool:
        """And not too long ago."""
        return server in self.offered and now - self.offered[server][1] < KNOWN_S

    def to_be_asked(self, servers: Collection[str], now: float) -> list[str]:
        """Those that are not known; each is named once in a while."""
        unknown = [
            server
            for server in servers
            if server not in self.offered and self._asked.get(server, 0.0) <= now
        ]
        self._asked.update(dict.fromkeys(unknown, now + ASK_AGAIN_S))
        return unknown

    def offers(self, word: bytes, server: str) -> bool:
        """Whether it does, as far as it has ever been heard of."""
        return server in self.offered and word in self.offered[server][0]

    def all_offer(self, word: bytes, servers: Collection[str]) -> bool:
        """Whether all of these do, as far as they have ever been heard of; and at least one has been."""
        offered = [self.offered[server][0] for server in servers if server in self.offered]
        return bool(offered) and all(word in words for words in offered)


class Languages:
    """What each backend said of Sieve scripts by ManageSieve (RFC 5804 §1.7), as it said it last; one a worker."""

    def __init__(self) -> None:
        self._told: dict[str, Mapping[bytes, bytes]] = {}

    def learn(self, server: str, offered: Mapping[bytes, bytes]) -> None:
        """What CAPABILITY has told there."""
        self._told[server] = offered

    def unknown_of(self, servers: Collection[str]) -> list[str]:
        """What no longer is a server is forgotten."""
        for gone in self._told.keys() - servers:
            del self._told[gone]
        return [server for server in servers if server not in self._told]

    def of(self, server: str) -> Mapping[bytes, bytes]:
        """What was learned last; nothing of a server that was not asked."""
        return self._told.get(server, {})

    def common(self) -> Mapping[bytes, bytes]:
        """The words that all have, in the order of the server whose name is first; of a number the smallest."""
        first, *others = [self._told[server] for server in sorted(self._told)] or [{}]
        common: dict[bytes, bytes] = {}
        for name, value in first.items():
            if not all(name in other for other in others):
                continue
            values = [value, *(other[name] for other in others)]
            if all(map(_is_number, values)):
                common[name] = min(values, key=int)
            else:
                wanted = set.intersection(*(set(of_server.split()) for of_server in values))
                common[name] = b" ".join(word for word in value.split() if word in wanted)
        return common


def _rights_of(words: frozenset[bytes]) -> frozenset[int]:
    """The letters behind RIGHTS= (RFC 4314 §4)."""
    letters = next((word for word in words if word.startswith(RIGHTS)), b"")
    return frozenset(letters[len(RIGHTS) :].lower())


def _is_number(octets: bytes) -> bool:
    """A backend may say anything: of thousands of digits none makes a number."""
    return octets.isdigit() and len(octets) <= MAX_DIGITS
