"""Undoing a part's transfer encoding and its character set (RFC 2045 §6). Never raises: what is damaged is read as well
as it goes.

All is done in pieces of bounded size, so that whoever reads a large part can pause between them: a C function that
works on the whole of it would hold the interpreter for as long as the mail is large.
"""

import binascii
import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Final

from murder.model.charset import codec_of

# of the encoded body; with some hundred texts to look for a few milliseconds
PIECE_OCTETS: Final = 16 * 1024
MAX_ENCODINGS: Final = 1000  # base64 encodings behind each other in one part

_LINE_ENDS: Final = b"\r\n"
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]++")
# in a line: a blank between others, or an octet that is neither of the encoding nor a blank
_FOREIGN: Final = re.compile(rb"(?<=\S)[ \t]++(?=\S)|[^A-Za-z0-9+/=\s]")
_OF_BASE64_LINES: Final = _BASE64 + b"="
# letters to a foreign octet in a damaged line of an encoding; fewer: the line is text
_LETTERS_TO_DAMAGE: Final = 32
# no character set, one that says it is unknown, or one that the octets may break
UNLABELLED: Final = (None, "ascii")
# what is ASCII is read as ASCII: not ISO-2022-JP, UTF-7, HZ
ASCII_CODECS: Final = frozenset({None, "ascii", "utf-8", "cp1252", "iso8859-15"})
AS_IT_IS: Final = frozenset({b"7BIT", b"8BIT", b"BINARY", b""})
# one place: a sequence of three octets is replaced by one, two or three
_DAMAGED: Final = re.compile("\ufffd++")
# the look-behind lets a run of blanks be tried once, from its begin
_TRAILING_SPACE: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")


def decoded_pieces(body: memoryview | bytes, encoding: bytes) -> Iterator[bytes] | None:
    """The body without its encoding (name in upper case), or None where that is not known. Piece by piece; each is one
    bounded step of work."""
    if encoding in AS_IT_IS:
        return _slices(body)
    if encoding == b"BASE64":
        return _base64_pieces(body)
    if encoding == b"QUOTED-PRINTABLE":
        return _quoted_pieces(body)
    return None


def _slices(body: memoryview | bytes) -> Iterator[bytes]:
    for at in range(0, len(body), PIECE_OCTETS):
        yield bytes(body[at : at + PIECE_OCTETS])


def _quoted_pieces(body: memoryview | bytes) -> Iterator[bytes]:
    """Pieces end with a line, or, where a line is longer than they, not within `=XX`."""
    at = 0
    while at < len(body):
        piece = bytes(body[at : at + PIECE_OCTETS])
        if at + len(piece) < len(body):
            end = piece.rfind(b"\n") + 1 or len(piece)
            if b"=" in piece[end - 2 : end] and not piece.endswith(b"\n", 0, end):
                end = piece.rindex(b"=", 0, end)
            piece = piece[:end]
        at += len(piece)
        yield binascii.a2b_qp(_TRAILING_SPACE.sub(b"", piece))


def decode_base64(octets: bytes) -> bytes:
    """Foreign octets are skipped; a rest that is no whole octet is dropped. Padding ends it, unless another whole
    encoding follows, and so does a line of text behind one of letters alone: so several encodings behind each other are
    read, and a mailing list's footer in plain text is not."""
    return b"".join(_base64_pieces(octets))


def _base64_pieces(body: memoryview | bytes) -> Iterator[bytes]:
    left = b""  # fewer than four octets of a group that is not complete
    ended = False  # padding has come
    encodings = 0
    for piece, is_end in _encoded_lines(body):
        compact = piece.translate(None, _LINE_ENDS)
        at = 0
        yield b""  # a step, also where there is nothing to be decoded
        while at < len(compact):
            if ended and compact.startswith(b"=", at):
                at += 1 if not compact.startswith(b"==", at) else _behind_padding(compact, at) - at
                continue
            end = compact.find(b"=", at)
            run = compact[at : end if end >= 0 else len(compact)]
            if ended and not _goes_on(run, end >= 0, is_end):
                return
            at += len(run)
            if run.translate(None, _BASE64):
                run = _NOT_BASE64.sub(b"", run)
            run = left + run
            whole = len(run) - len(run) % 4
            decoded = binascii.a2b_base64(run[:whole]) if whole else b""
            left, ended = run[whole:], False
            if end >= 0:
                decoded += _last_octets(left)
                left, ended = b"", True
                encodings += 1
                if encodings >= MAX_ENCODINGS:
                    yield decoded
                    return
            yield decoded
    yield _last_octets(left)


def _encoded_lines(body: memoryview | bytes) -> Iterator[tuple[bytes, bool]]:
    """Whole lines, as long as they are no longer than a piece, up to one that is text; each with whether it is the last.
    Where the first line has foreign octets (RFC 2045 §6.8: skip them), none counts as text."""
    at, is_clean = 0, None
    while at < len(body):
        piece = bytes(body[at : at + PIECE_OCTETS])
        if at + len(piece) < len(body):
            piece = piece[: piece.rfind(b"\n") + 1 or len(piece)]
        at += len(piece)
        if is_clean is None and (begun := piece.lstrip()):
            is_clean = _FOREIGN.search(begun.partition(b"\n")[0]) is None
        end = _text_line(piece) if is_clean else -1
        if end >= 0:
            yield piece[:end], True
            return
        yield piece, at >= len(body)


def _text_line(piece: bytes) -> int:
    """Where the first line begins that is text; -1: there is none."""
    at = 0
    while foreign := _FOREIGN.search(piece, at):
        begin = piece.rfind(b"\n", at, foreign.start()) + 1 or at
        at = piece.find(b"\n", foreign.end())
        at = len(piece) if at < 0 else at
        line = piece[begin:at].strip()
        if len(line.translate(None, _OF_BASE64_LINES)) * _LETTERS_TO_DAMAGE > len(line):
            return begin
    return -1


def _behind_padding(compact: bytes, at: int) -> int:
    """Behind the `=` at this place, however many there are."""
    rest = compact[at:]
    return at + len(rest) - len(rest.lstrip(b"="))


def _goes_on(run: bytes, is_padded: bool, is_end: bool) -> bool:
    """Whether what follows padding is an encoding of its own: only its letters, no blank between them, and a whole number
    of groups if it ends here without padding."""
    run = run.strip(b" \t")
    if run.translate(None, _BASE64) or (len(run) % 4 == 1 and (is_padded or is_end)):
        return False
    return is_padded or not is_end or len(run) % 4 == 0


def _last_octets(left: bytes) -> bytes:
    """Of a group that is not complete: two letters are an octet, three are two."""
    return binascii.a2b_base64(left + b"=" * (4 - len(left))) if len(left) > 1 else b""


def decode_text(octets: memoryview | bytes, charset: str) -> str:
    """Text of a character set; what is damaged in it is replaced. Where none is told, or one that is not known, it is
    taken for UTF-8, and for Latin-1 if it is mostly not that: so that something can still be found in it."""
    octets = bytes(octets)
    codec = codec_of(charset) if charset else None
    if codec in UNLABELLED:
        return _decode_unlabelled(octets)
    try:
        return octets.decode(codec, "replace")
    except (UnicodeError, LookupError):
        return octets.decode("latin-1")


def _decode_unlabelled(octets: bytes) -> str:
    if octets.isascii():
        return octets.decode("ascii")
    return octets.decode(_unlabelled_codec(octets), "replace")


def _unlabelled_codec(octets: bytes) -> str:
    """UTF-8 if there are as many whole characters in it as damaged places: hardly any Latin-1 text looks like that."""
    text = octets.decode("utf-8", "replace")
    whole = len(text) - len(text.encode("ascii", "ignore")) - text.count("\ufffd")
    return "utf-8" if whole >= len(_DAMAGED.findall(text)) else "cp1252"


def text_pieces(pieces: Iterable[bytes], charset: str) -> Iterator[str]:
    """As `decode_text`, piece by piece; characters that are cut by the pieces are put together. What has no label is
    judged by the first piece with octets that are not ASCII."""
    codec = codec_of(charset) if charset else None
    decoder: codecs.IncrementalDecoder | None = None
    if codec not in UNLABELLED:
        decoder = codecs.getincrementaldecoder(codec)("replace")
    for piece in pieces:
        if decoder is None:
            if piece.isascii():
                yield piece.decode("ascii")
                continue
            decoder = codecs.getincrementaldecoder(_unlabelled_codec(piece))("replace")
        yield _decode_some(decoder, piece)
    if decoder is not None:
        yield _decode_some(decoder, b"", final=True)


def _decode_some(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool = False) -> str:
    try:
        return decoder.decode(piece, final)
    except (UnicodeError, LookupError):
        decoder.reset()
        return piece.decode("latin-1")
