"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, UNSELECT's kin: commands whose arguments are mailboxes
(RFC 3501 §6.3, RFC 6154 §3 `USE`)."""

from dataclasses import dataclass, field
from typing import Final

from murder.wire.token import Scanner, client_astring

MAX_USES: Final = 20  # of one mailbox; there are seven
MAX_PARAMETERS: Final = 10  # of a CREATE; there are two
MAX_SERVERS: Final = 1000  # that a hierarchy lies on


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """`partition` is Cyrus' second argument: `partition` or `server!partition`; None if not given."""

    mailbox: bytes
    partition: bytes | None = None
    special_use: tuple[bytes, ...] = field(default=())  # attributes as written: \\Sent …


@dataclass(frozen=True, slots=True)
class RenameRequest:
    old: bytes
    new: bytes
    partition: bytes | None = None  # Cyrus' third argument
    servers: tuple[str, ...] = ()  # of XRENAME: who has something below the old name


# delete = "DELETE" SP mailbox; subscribe, unsubscribe, getacl, myrights … likewise
def parse_mailbox(scanner: Scanner) -> bytes:
    """The only argument is a mailbox; its octets as the client wrote them."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.end()
    return mailbox


# create = "CREATE" SP mailbox [SP "(" create-param *(SP create-param) ")"]
# create-param = "USE" SP "(" [use-attr *(SP use-attr)] ")"
def parse_create(scanner: Scanner) -> CreateRequest:
    """Also with Cyrus' partition, which Cyrus frontends send; and `(PARTITION name)`, `(USE (…))` in parentheses."""
    scanner.space()
    mailbox = scanner.astring()
    partition: bytes | None = None
    uses: list[bytes] = []
    if not scanner.at_end():
        scanner.space()
        if scanner.accept(b"("):
            partition = _parse_create_params(scanner, uses)
        else:
            partition = scanner.astring()
    scanner.end()
    return CreateRequest(mailbox, partition, tuple(uses))


def _parse_create_params(scanner: Scanner, uses: list[bytes]) -> bytes | None:
    partition: bytes | None = None
    words = 0
    while True:
        words += 1
        if words > MAX_PARAMETERS:
            raise scanner.bad(f"at most {MAX_PARAMETERS} parameters")
        if scanner.accept_word(b"USE"):
            scanner.space()
            scanner.open()
            while not scanner.accept(b")"):
                uses.append(scanner.flag())
                if len(uses) > MAX_USES:
                    raise scanner.bad(f"at most {MAX_USES} special uses")
                if scanner.peek() != b")":
                    scanner.space()
        elif scanner.accept_word(b"PARTITION"):
            scanner.space()
            partition = scanner.astring()
        else:
            raise scanner.bad("USE or PARTITION")
        if scanner.accept(b")"):
            return partition
        scanner.space()


# rename = "RENAME" SP mailbox SP mailbox
def parse_rename(scanner: Scanner) -> RenameRequest:
    """With Cyrus' third argument, a partition."""
    scanner.space()
    old = scanner.astring()
    scanner.space()
    new = scanner.astring()
    partition = None
    if not scanner.at_end():
        scanner.space()
        partition = scanner.astring()
    scanner.end()
    return RenameRequest(old, new, partition)


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """A mailbox with all below it, of which these other servers have something."""

    mailbox: bytes
    servers: tuple[str, ...] = ()


# xdelete = ("XDELETE" / "XUNDELETE") SP mailbox SP "(" [astring *(SP astring)] ")" ; ours
def parse_tree_request(scanner: Scanner) -> TreeRequest:
    """Raises BadSyntax."""
    scanner.space()
    mailbox = scanner.astring()
    scanner.space()
    return TreeRequest(mailbox, _servers(scanner))


def _servers(scanner: Scanner) -> tuple[str, ...]:
    scanner.expect(b"(")
    servers: list[bytes] = []
    while not scanner.accept(b")"):
        if servers:
            scanner.space()
        servers.append(scanner.astring())
        if len(servers) > MAX_SERVERS:
            raise scanner.bad(f"at most {MAX_SERVERS} servers")
    scanner.end()
    return tuple(server.decode("utf-8", "replace") for server in servers)


def format_tree(verb: bytes, request: TreeRequest) -> bytes:
    """The command XDELETE or XUNDELETE, without a tag and CRLF."""
    servers = b" ".join(client_astring(server.encode()) for server in request.servers)
    return b"%b %b (%b)" % (verb, client_astring(request.mailbox), servers)


# xrename = "XRENAME" SP mailbox SP mailbox SP "(" astring *(SP astring) ")" ; ours
def parse_joint_rename(scanner: Scanner) -> RenameRequest:
    """Of a hierarchy that lies on several servers, the others of which it names. Raises BadSyntax."""
    scanner.space()
    old = scanner.astring()
    scanner.space()
    new = scanner.astring()
    scanner.space()
    return RenameRequest(old, new, None, _servers(scanner))


def format_joint_rename(request: RenameRequest) -> bytes:
    """The command, without a tag and CRLF."""
    names = client_astring(request.old) + b" " + client_astring(request.new)
    servers = b" ".join(client_astring(server.encode()) for server in request.servers)
    return b"XRENAME %b (%b)" % (names, servers)
