"""IMAP and MUPDATE URLs, both directions (RFC 5092 §11, RFC 4467, RFC 3656 §6).

A mailbox in a URL is UTF-8, percent-encoded; as a value it is modified UTF-7. Parsing raises BadSyntax.
"""

import re
from datetime import datetime
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from murder.errors import BadSyntax
from murder.model.message import MAX_UID, Uid, UidValidity
from murder.model.query.fetch import Section
from murder.model.url import ImapUrl, UrlAccess, UrlServer
from murder.wire import mutf7
from murder.wire.imap.mail.fetch import format_section, parse_section
from murder.wire.token import Scanner

MAX_URL_OCTETS: Final = 8 * 1024

_SAFE: Final = "-._~!$'()*+,&="  # achar, without what must be encoded
_SAFE_PATH: Final = _SAFE + ":@/"  # bchar
_PRINTABLE: Final = re.compile(rb"[!-~]*\Z")
_OTHER_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")

# iserver = [iuserinfo "@"] host [ ":" port ]; iuserinfo = enc-user [iauth] / [enc-user] iauth
_SERVER: Final = re.compile(
    rb"(?:([^;@/]+)?(?:;AUTH=([^;@/]+))?@)?(\[[0-9A-Fa-f:.]+\]|[^;@/:\[\]]+)(?::([0-9]{1,5}))?\Z",
    re.IGNORECASE,
)
# icommand = imailbox-ref [ "?" enc-search ] / imailbox-ref iuid [isection] [ipartial] [iurlauth]
_COMMAND: Final = re.compile(
    rb"(?P<mailbox>[^;?]*?)(?:;UIDVALIDITY=(?P<uidvalidity>[1-9][0-9]{0,9}))?"
    rb"(?:\?(?P<search>.+)|"
    rb"(?:/?;UID=(?P<uid>[1-9][0-9]{0,9}))?(?:/?;SECTION=(?P<section>[^;]+?))?"
    rb"(?:/?;PARTIAL=(?P<offset>[0-9]{1,10})(?:\.(?P<length>[1-9][0-9]{0,9}))?)?"
    rb"(?P<rump>(?:;EXPIRE=(?P<expire>[^;]{1,40}))?;URLAUTH=(?P<access>anonymous|authuser|(?:user|submit)\+[^:;]+))?"
    rb"(?::(?P<mechanism>[A-Za-z0-9.-]+):(?P<token>[0-9A-Fa-f]{32,512}))?)\Z",
    re.IGNORECASE,
)


def parse_url(octets: bytes) -> ImapUrl:
    """Any `imapurl` or relative one. Raises BadSyntax."""
    if len(octets) > MAX_URL_OCTETS or not _PRINTABLE.match(octets) or _BAD_ESCAPE.search(octets):
        raise BadSyntax(f"a URL has at most {MAX_URL_OCTETS} printable ASCII characters")
    server, rest = None, octets
    if octets[:7].lower() == b"imap://" or octets.startswith(b"//"):
        authority, _, rest = octets[octets.index(b"//") + 2 :].partition(b"/")
        server = _parse_server(authority)
    elif _OTHER_SCHEME.match(octets):
        raise BadSyntax("an IMAP URL begins with imap://", 0)
    elif octets.startswith(b"/"):
        rest = octets[1:]
    match = _COMMAND.match(rest)
    if match is None:
        raise BadSyntax("this is not an IMAP URL", len(octets) - len(rest))
    field = match.groupdict()
    search = field["search"]
    return ImapUrl(
        server,
        _parse_mailbox(field["mailbox"]) if field["mailbox"] else None,
        UidValidity(_number(field["uidvalidity"])) if field["uidvalidity"] else None,
        Uid(_number(field["uid"])) if field["uid"] else None,
        _parse_section(field["section"]) if field["section"] else None,
        _parse_partial(field["offset"], field["length"]),
        None if search is None else unquote_to_bytes(search),
        _parse_access(octets, rest, match),
    )


def _parse_server(authority: bytes) -> UrlServer:
    match = _SERVER.match(authority)
    if match is None:
        raise BadSyntax("a URL's server is [user[;AUTH=mechanism]@]host[:port]")
    user, mechanism, host, port = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise BadSyntax("a port is 1 to 65535")
    return UrlServer(
        _text(host),
        None if port is None else int(port),
        None if user is None else _text(user),
        None if mechanism is None else _text(mechanism),
    )


def _text(octets: bytes) -> str:
    try:
        return unquote_to_bytes(octets).decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("a URL is in UTF-8") from None


def _number(octets: bytes) -> int:
    number = int(octets)
    if number > MAX_UID:
        raise BadSyntax(f"a number in a URL is at most {MAX_UID}")
    return number


def _parse_mailbox(octets: bytes) -> bytes:
    return mutf7.encode(_text(octets))


def _parse_section(octets: bytes) -> Section:
    """enc-section: what stands between the brackets of BODY[…]."""
    scanner = Scanner(unquote_to_bytes(octets) + b"]\r\n")
    section = parse_section(scanner)
    scanner.end()
    return section


def _parse_partial(offset: bytes | None, length: bytes | None) -> tuple[int, int | None] | None:
    if offset is None:
        return None
    return _number(offset), None if length is None else _number(length)


def _parse_access(octets: bytes, rest: bytes, match: re.Match[bytes]) -> UrlAccess | None:
    raw_access, raw_expire, token = match["access"], match["expire"], match["token"]
    if raw_access is None:
        if token is not None:
            raise BadSyntax("a URL's token needs URLAUTH")
        return None
    if match["uid"] is None:
        raise BadSyntax("a URL with URLAUTH names a message")
    word, _, user = raw_access.partition(b"+")
    expire = None
    if raw_expire is not None:
        try:
            expire = datetime.fromisoformat(_text(raw_expire))
        except ValueError:
            raise BadSyntax("EXPIRE is a time like 2024-01-31T12:00:00Z") from None
        if expire.tzinfo is None:
            raise BadSyntax("EXPIRE needs a time zone")
    return UrlAccess(
        word.decode("ascii").lower(),
        _text(user),
        expire,
        _text(match["mechanism"] or b"").upper(),
        (token or b"").lower(),
        octets[: len(octets) - len(rest) + match.end("rump")],
    )


def format_url(url: ImapUrl) -> bytes:
    """The URL in its shortest form; relative if it has no server. A name that is no modified UTF-7 goes octet by octet."""
    pieces = []
    if url.server is not None:
        pieces.append("imap://" + _format_server(url.server))
    if url.server is not None or url.mailbox is not None:
        pieces.append("/")
    if url.mailbox is not None:
        name = mutf7.decode_leniently(url.mailbox).encode("utf-8", "surrogateescape")
        pieces.append(quote_from_bytes(name, _SAFE_PATH))
    if url.uid_validity is not None:
        pieces.append(f";UIDVALIDITY={url.uid_validity}")
    if url.search is not None:
        pieces.append("?" + quote_from_bytes(url.search, _SAFE_PATH))
    if url.uid is not None:
        pieces.append(f"/;UID={url.uid}")
    if url.section is not None:
        pieces.append("/;SECTION=" + quote_from_bytes(format_section(url.section), _SAFE_PATH))
    if url.partial is not None:
        offset, length = url.partial
        pieces.append(f"/;PARTIAL={offset}" + ("" if length is None else f".{length}"))
    if url.access is not None:
        pieces.append(_format_access(url.access))
    return "".join(pieces).encode("ascii")


def _format_server(server: UrlServer) -> str:
    user = "" if server.user is None else quote_from_bytes(_octets(server.user), _SAFE)
    mechanism = ""
    if server.mechanism is not None:
        mechanism = ";AUTH=" + quote_from_bytes(_octets(server.mechanism), _SAFE)
    at = "@" if user or mechanism else ""
    port = "" if server.port is None else f":{server.port}"
    return f"{user}{mechanism}{at}{quote_from_bytes(_octets(server.host), _SAFE + '[]:')}{port}"


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _format_access(access: UrlAccess) -> str:
    expire = "" if access.expire is None else ";EXPIRE=" + access.expire.isoformat()
    user = "+" + quote_from_bytes(_octets(access.user), _SAFE) if access.user else ""
    text = f"{expire};URLAUTH={access.access}{user}"
    if access.token:
        text += f":{access.mechanism}:{access.token.decode('ascii')}"
    return text


# mupdateurl = "mupdate://" iserver "/" [ enc_mailbox ]
def format_mupdate_url(server: UrlServer, mailbox: bytes = b"") -> bytes:
    """`mupdate://host/name`: the name in canonical form, octet by octet (RFC 3656 §6)."""
    text = "mupdate://" + _format_server(server) + "/" + quote_from_bytes(mailbox, _SAFE_PATH)
    return text.encode("ascii")


def parse_mupdate_url(octets: bytes) -> tuple[UrlServer, bytes]:
    """Server and canonical name (b"" for none). Raises BadSyntax."""
    if octets[:10].lower() != b"mupdate://" or not _PRINTABLE.match(octets):
        raise BadSyntax("a MUPDATE URL begins with mupdate://")
    authority, _, name = octets[10:].partition(b"/")
    return _parse_server(authority), unquote_to_bytes(name)
