"""SEARCH, SORT and THREAD: arguments and answers.

RFC 3501 §6.4.4 and §7.2.5 with RFC 4466 §2.6, 4731 (ESEARCH), 5032 (WITHIN), 5182 (SEARCHRES), 5256 (SORT, THREAD), 5957,
6203 (FUZZY), 7162 (MODSEQ), 8474 (OBJECTID), 8514 (SAVEDATE), 9394 (PARTIAL).
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from murder.errors import BadSyntax, Code, Refusal
from murder.model.charset import OFFERED, US_ASCII, UTF_8, codec_of
from murder.model.flag import ANSWERED, DELETED, DRAFT, FLAGGED, RECENT, SEEN
from murder.model.message import ModSeq
from murder.model.query.fetch import FetchItem
from murder.model.query.search import (
    DEFAULT_RETURNS,
    AddressHas,
    All,
    And,
    BodyHas,
    DateIs,
    DateOf,
    EmailIdIs,
    Fuzzy,
    HasFlag,
    HeaderHas,
    ModSeqFrom,
    Not,
    Or,
    Relation,
    ReturnOption,
    SaveDateSupported,
    SearchKey,
    SearchRequest,
    SearchResult,
    SeqNumIn,
    SizeIs,
    SortKey,
    SortOrder,
    TextHas,
    ThreadAlgorithm,
    ThreadIdIs,
    UidIn,
    YoungerThan,
)
from murder.model.seqset import Ranges
from murder.wire.imap.date import parse_date
from murder.wire.imap.flag import parse_flag
from murder.wire.imap.mail.fetch import parse_item_list
from murder.wire.imap.partial import format_partial, parse_partial
from murder.wire.imap.seqset import format_ranges, parse_seqset
from murder.wire.token import Scanner, string

MAX_DEPTH: Final = 64  # of parentheses, NOT and OR; no client nests more than a few
MAX_KEYS: Final = 1000  # each is asked of each message, a fraction of a microsecond
# so many times that with sets of numbers, which cost no more than one of them
WITH_SETS: Final = 10
TEXTS: Final = 5  # a fifth of them may be texts: each is looked for in each message, about a millisecond a megabyte
MAX_TAGS: Final = 100  # of searches that are kept up to date no longer; there are fewer
MAX_TEXT_OCTETS: Final = 8192  # of one search text
NUMBERS_AT_ONCE: Final = 5000
MAX_MODSEQ: Final = 2**63 - 1
MAX_OCTETS: Final = 2**63 - 1  # number64 (RFC 9051 §9)


# search = "SEARCH" [SP search-return-opts] SP search-program
# search-program = ["CHARSET" SP charset SP] search-key *(SP search-key)
def parse_search(scanner: Scanner, most: int = MAX_KEYS) -> SearchRequest:
    """All arguments, from the SP behind the name to the line end. Raises Refusal(BAD_CHARSET) for a character set that
    is not known."""
    scanner.space()
    returns = _parse_returns(scanner)
    charset = ""
    if scanner.accept_word(b"CHARSET"):
        scanner.space()
        charset = scanner.astring().decode("ascii", "replace")
        scanner.space()
    key = _KeyParser(scanner, charset, most).parse_program()
    return SearchRequest(
        key,
        charset or US_ASCII,
        returns.options,
        returns.partial,
        update_items=returns.update_items,
    )


# sort = "SORT" [SP search-return-opts] SP sort-criteria SP charset SP search-key *(SP search-key)
# imaptest has the options behind the charset, where nothing else begins with RETURN
def parse_sort(scanner: Scanner, most: int = MAX_KEYS) -> SearchRequest:
    """`most`: keys that it may have. Raises BadSyntax; Refusal(BAD_CHARSET)."""
    scanner.space()
    returns = _parse_returns(scanner)
    orders = _parse_sort_criteria(scanner)
    scanner.space()
    charset = scanner.astring().decode("ascii", "replace")
    scanner.space()
    if returns.options is None:
        returns = _parse_returns(scanner)
    key = _KeyParser(scanner, charset, most).parse_program()
    return SearchRequest(
        key,
        charset,
        returns.options,
        returns.partial,
        sort=orders,
        update_items=returns.update_items,
    )


# thread = "THREAD" SP thread-alg SP charset SP search-key *(SP search-key)
def parse_thread(scanner: Scanner, most: int = MAX_KEYS) -> SearchRequest:
    """As `parse_sort`."""
    scanner.space()
    start = scanner.at
    word = scanner.word().decode("ascii")
    if word not in ThreadAlgorithm.__members__:
        scanner.at = start
        raise scanner.bad("ORDEREDSUBJECT or REFERENCES")
    scanner.space()
    charset = scanner.astring().decode("ascii", "replace")
    scanner.space()
    key = _KeyParser(scanner, charset, most).parse_program()
    return SearchRequest(key, charset, thread=ThreadAlgorithm[word])


class _Returns(NamedTuple):
    options: frozenset[ReturnOption] | None = None
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()


# search-return-opts = "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")"
# modifier-update = "UPDATE" ["(" fetch-att *(SP fetch-att) ")"]; RFC 5465 §7's example has a SP before the parenthesis
def _parse_returns(scanner: Scanner) -> _Returns:
    """The options with their arguments, and the SP behind them."""
    if not scanner.accept_word(b"RETURN"):
        return _Returns()
    scanner.space()
    scanner.open()
    chosen: set[ReturnOption] = set()
    partial: tuple[int, int] | None = None
    update_items: tuple[FetchItem, ...] = ()
    while not scanner.accept(b")"):
        start = scanner.at
        word = scanner.word().decode("ascii")
        if word not in ReturnOption.__members__:
            scanner.at = start
            raise scanner.bad("a RETURN option")
        option = ReturnOption[word]
        if option is ReturnOption.PARTIAL:
            if option in chosen or ReturnOption.ALL in chosen:
                raise scanner.bad("PARTIAL once, and not with ALL")
            scanner.space()
            partial = parse_partial(scanner)
        elif option is ReturnOption.ALL and ReturnOption.PARTIAL in chosen:
            raise scanner.bad("PARTIAL without ALL")
        elif option is ReturnOption.UPDATE and scanner.is_open_next():
            scanner.space()
            update_items = parse_item_list(scanner)
        chosen.add(option)
        if scanner.peek() != b")":
            scanner.space()
    scanner.space()
    return _Returns(frozenset(chosen) or DEFAULT_RETURNS, partial, update_items)


# sort-criteria = "(" sort-criterion *(SP sort-criterion) ")"; sort-criterion = ["REVERSE" SP] sort-key
def _parse_sort_criteria(scanner: Scanner) -> tuple[SortOrder, ...]:
    scanner.open()
    orders: list[SortOrder] = []
    while True:
        reverse = scanner.accept_word(b"REVERSE")
        if reverse:
            scanner.space()
        start = scanner.at
        word = scanner.word().decode("ascii")
        if word not in SortKey.__members__ or len(orders) > len(SortKey):
            scanner.at = start
            raise scanner.bad("a sort key, each once")
        orders.append(SortOrder(SortKey[word], reverse))
        if scanner.accept(b")"):
            return tuple(orders)
        scanner.space()


class _KeyParser:
    """Search keys of one command: knows its character set, and how deep and how many keys there are."""

    __slots__ = ("_charset", "_codec", "_depth", "_keys", "_most", "_others", "_scanner", "_texts")

    def __init__(self, scanner: Scanner, charset: str, most: int) -> None:
        """`most` keys other than sets of numbers. `charset` is empty where the client named none; 8-bit text is then taken
        for UTF-8, which RFC 9051 §6.4.4 makes the rule."""
        self._scanner = scanner
        codec = codec_of(charset or UTF_8)
        if codec is None:
            raise Refusal(
                Code.BAD_CHARSET,
                "This character set is not known here",
                "(" + " ".join(OFFERED) + ")",
            )
        self._codec = codec
        self._charset = charset
        self._depth = 0
        self._most = most
        self._keys = 0
        self._others = 0  # of the keys, those that are no sets of numbers
        self._texts = 0

    def parse_program(self) -> SearchKey:
        keys = [self._key()]
        while not self._scanner.at_end():
            self._scanner.space()
            keys.append(self._key())
        self._scanner.end()
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def _key(self) -> SearchKey:
        self._depth += 1
        self._keys += 1
        if self._depth > MAX_DEPTH or self._keys > WITH_SETS * self._most:
            most = WITH_SETS * self._most
            raise self._scanner.bad(f"at most {most} search keys, nested {MAX_DEPTH} deep")
        key = self._key_inside()
        self._depth -= 1
        return key

    def _key_inside(self) -> SearchKey:
        scanner = self._scanner
        following = scanner.peek()
        if following == b"(":
            return self._group()
        if following in (b"*", b"$") or following.isdigit():
            return SeqNumIn(parse_seqset(scanner))
        start = scanner.at
        word = scanner.word()
        self._others += word not in _OF_NUMBERS
        if self._others > self._most:
            raise scanner.bad(f"at most {self._most} search keys other than sets of numbers")
        plain = _PLAIN_KEYS.get(word)
        if plain is not None:
            return plain
        parse = _KEYS_WITH_ARGUMENTS.get(word)
        if parse is None:
            scanner.at = start
            raise scanner.bad("a search key")
        scanner.space()
        return parse(self)

    def _group(self) -> SearchKey:
        scanner = self._scanner
        scanner.open()
        keys = [self._key()]
        while not scanner.accept(b")"):
            scanner.space()
            keys.append(self._key())
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def _text(self) -> str:
        start = self._scanner.at
        octets = self._scanner.astring()
        self._texts += 1
        if self._texts > self._most // TEXTS:
            most = self._most // TEXTS
            raise BadSyntax(f"at most {most} texts can be searched for at once", start)
        if len(octets) > MAX_TEXT_OCTETS:
            raise BadSyntax(f"a search text has at most {MAX_TEXT_OCTETS} octets", start)
        try:
            return octets.decode(self._codec)
        except UnicodeError:
            if self._codec == "utf-8":  # JavaMail sends Latin-1 where UTF8=ACCEPT is offered
                return octets.decode("cp1252", "replace")
            raise BadSyntax(
                f"the text is not in {self._charset or 'UTF-8'}; CHARSET names another", start
            ) from None

    def _not(self) -> SearchKey:
        return Not(self._key())

    def _fuzzy(self) -> SearchKey:
        return Fuzzy(self._key())

    def _or(self) -> SearchKey:
        first = self._key()
        self._scanner.space()
        return Or(first, self._key())

    def _uid(self) -> SearchKey:
        return UidIn(parse_seqset(self._scanner))

    def _keyword(self) -> SearchKey:
        return HasFlag(parse_flag(self._scanner))

    def _unkeyword(self) -> SearchKey:
        return Not(self._keyword())

    def _header(self) -> SearchKey:
        start = self._scanner.at
        field = self._scanner.astring()
        if not field or not field.isascii():
            raise BadSyntax("a header field's name is ASCII", start)
        self._scanner.space()
        return HeaderHas(field.decode("ascii").lower(), self._text())

    def _body(self) -> SearchKey:
        return BodyHas(self._text())

    def _all_text(self) -> SearchKey:
        return TextHas(self._text())

    def _larger(self) -> SearchKey:
        return SizeIs(True, self._scanner.number(MAX_OCTETS))

    def _smaller(self) -> SearchKey:
        return SizeIs(False, self._scanner.number(MAX_OCTETS))

    def _younger(self) -> SearchKey:
        seconds = self._scanner.number()
        if not seconds:
            raise self._scanner.bad("a number of seconds from 1")
        return YoungerThan(seconds)

    def _older(self) -> SearchKey:
        return Not(self._younger())

    # search-modseq = "MODSEQ" [SP entry-name SP entry-type-req] SP mod-sequence-valzer
    def _modseq(self) -> SearchKey:
        scanner = self._scanner
        if scanner.peek() == b'"':
            scanner.string()  # we keep one mod-sequence a message, so per-flag entries count as any change
            scanner.space()
            if scanner.word() not in (b"PRIV", b"SHARED", b"ALL"):
                raise scanner.bad("priv, shared or all")
            scanner.space()
        return ModSeqFrom(ModSeq(scanner.number(MAX_MODSEQ)))

    def _email_id(self) -> SearchKey:
        return EmailIdIs(self._scanner.atom().decode("ascii"))

    def _thread_id(self) -> SearchKey:
        return ThreadIdIs(self._scanner.atom().decode("ascii"))

    def date_key(self, of: DateOf, relation: Relation) -> SearchKey:
        return DateIs(of, relation, parse_date(self._scanner))

    def header_key(self, field: str) -> SearchKey:
        return HeaderHas(field, self._text())

    def address_key(self, field: str) -> SearchKey:
        return AddressHas(field, self._text())


_KeyRule = Callable[[_KeyParser], SearchKey]


def _date_rule(of: DateOf, relation: Relation) -> _KeyRule:
    return lambda parser: parser.date_key(of, relation)


def _header_rule(field: str) -> _KeyRule:
    return lambda parser: parser.header_key(field)


def _address_rule(field: str) -> _KeyRule:
    return lambda parser: parser.address_key(field)


_OF_NUMBERS: Final = frozenset({b"NOT", b"OR", b"UID"})

_PLAIN_KEYS: Final[Mapping[bytes, SearchKey]] = {
    b"ALL": All(),
    b"ANSWERED": HasFlag(ANSWERED),
    b"DELETED": HasFlag(DELETED),
    b"DRAFT": HasFlag(DRAFT),
    b"FLAGGED": HasFlag(FLAGGED),
    b"RECENT": HasFlag(RECENT),
    b"SEEN": HasFlag(SEEN),
    b"NEW": And((HasFlag(RECENT), Not(HasFlag(SEEN)))),
    b"OLD": Not(HasFlag(RECENT)),
    b"UNANSWERED": Not(HasFlag(ANSWERED)),
    b"UNDELETED": Not(HasFlag(DELETED)),
    b"UNDRAFT": Not(HasFlag(DRAFT)),
    b"UNFLAGGED": Not(HasFlag(FLAGGED)),
    b"UNSEEN": Not(HasFlag(SEEN)),
    b"SAVEDATESUPPORTED": SaveDateSupported(),
}

_KEYS_WITH_ARGUMENTS: Final[Mapping[bytes, _KeyRule]] = {
    b"BCC": _address_rule("bcc"),
    b"CC": _address_rule("cc"),
    b"FROM": _address_rule("from"),
    b"SUBJECT": _header_rule("subject"),
    b"TO": _address_rule("to"),
    b"HEADER": _KeyParser._header,
    b"BODY": _KeyParser._body,
    b"TEXT": _KeyParser._all_text,
    b"BEFORE": _date_rule(DateOf.INTERNAL, Relation.BEFORE),
    b"ON": _date_rule(DateOf.INTERNAL, Relation.ON),
    b"SINCE": _date_rule(DateOf.INTERNAL, Relation.SINCE),
    b"SENTBEFORE": _date_rule(DateOf.SENT, Relation.BEFORE),
    b"SENTON": _date_rule(DateOf.SENT, Relation.ON),
    b"SENTSINCE": _date_rule(DateOf.SENT, Relation.SINCE),
    b"SAVEDBEFORE": _date_rule(DateOf.SAVED, Relation.BEFORE),
    b"SAVEDON": _date_rule(DateOf.SAVED, Relation.ON),
    b"SAVEDSINCE": _date_rule(DateOf.SAVED, Relation.SINCE),
    b"KEYWORD": _KeyParser._keyword,
    b"UNKEYWORD": _KeyParser._unkeyword,
    b"LARGER": _KeyParser._larger,
    b"SMALLER": _KeyParser._smaller,
    b"NOT": _KeyParser._not,
    b"OR": _KeyParser._or,
    b"FUZZY": _KeyParser._fuzzy,
    b"UID": _KeyParser._uid,
    b"MODSEQ": _KeyParser._modseq,
    b"OLDER": _KeyParser._older,
    b"YOUNGER": _KeyParser._younger,
    b"EMAILID": _KeyParser._email_id,
    b"THREADID": _KeyParser._thread_id,
}


def format_search(
    numbers: Iterable[int], modseq: ModSeq | None = None, word: bytes = b"SEARCH"
) -> bytes:
    """`* SEARCH 1 2 3 (MODSEQ n)CRLF`; `word` is SORT for that. MODSEQ only where something was found."""
    every = iter(numbers)
    texts = []  # of some thousand each: one `join` of a million would hold the interpreter
    while some := " ".join(map(str, islice(every, NUMBERS_AT_ONCE))):
        texts.append(some)
    text = " ".join(texts).encode("ascii")
    if not text:
        return b"* %s\r\n" % word
    if modseq is not None:
        text += b" (MODSEQ %d)" % modseq
    return b"* %s %s\r\n" % (word, text)


# esearch-response = "ESEARCH" [search-correlator] [SP "UID"] *(SP search-return-data)
def format_esearch(tag: bytes, by_uid: bool, result: SearchResult) -> bytes:
    """`* ESEARCH (TAG "…") UID COUNT 3 …CRLF`. PARTIAL of nothing is told as NIL."""
    pieces = [b"* ESEARCH (TAG %s)" % string(tag)]
    if by_uid:
        pieces.append(b"UID")
    if result.least is not None:
        pieces.append(b"MIN %d" % result.least)
    if result.greatest is not None:
        pieces.append(b"MAX %d" % result.greatest)
    if result.all:
        pieces.append(b"ALL " + format_ranges(result.all))
    if result.count is not None:
        pieces.append(b"COUNT %d" % result.count)
    if result.partial is not None:
        window, numbers = result.partial
        listed = format_ranges(numbers) or b"NIL"
        pieces.append(b"PARTIAL (%s %s)" % (format_partial(window), listed))
    if result.modseq is not None:
        pieces.append(b"MODSEQ %d" % result.modseq)
    return b" ".join(pieces) + b"\r\n"


# search-return-data: "ADDTO" SP "(" context-position SP sequence-set … ")" / "REMOVEFROM" …, RFC 5267 §4.3
def format_context_change(
    tag: bytes, by_uid: bool, added: bool, changes: Iterable[tuple[int, Ranges]]
) -> bytes:
    """`* ESEARCH (TAG "…") UID ADDTO (0 5:6)CRLF`: results that came to a search kept up to date, or left it. Each change
    is a position (1 is the first, 0 where there is no order) and the messages at it."""
    each = [b"%d %s" % (position, format_ranges(numbers)) for position, numbers in changes]
    return b"* ESEARCH (TAG %s)%s %s (%s)\r\n" % (
        string(tag),
        b" UID" if by_uid else b"",
        b"ADDTO" if added else b"REMOVEFROM",
        b" ".join(each),
    )


# cancelupdate = "CANCELUPDATE" 1*(SP quoted)
def parse_cancelupdate(scanner: Scanner) -> tuple[bytes, ...]:
    """The tags of the searches that need no longer be kept up to date (RFC 5267 §4.4)."""
    tags: list[bytes] = []
    while not tags or not scanner.at_end():
        scanner.space()
        tags.append(scanner.string())
        if len(tags) > MAX_TAGS:
            raise scanner.bad(f"at most {MAX_TAGS} tags")
    scanner.end()
    return tuple(tags)
