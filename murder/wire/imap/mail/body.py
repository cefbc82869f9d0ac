"""BODY and BODYSTRUCTURE in a FETCH answer (RFC 3501 §7.4.2 and §9 `body`)."""

from murder.model.part import Parameters, Part
from murder.wire.imap.mail.envelope import format_envelope
from murder.wire.token import nstring, string


# body = "(" (body-type-1part / body-type-mpart) ")"
def format_body_structure(part: Part, extended: bool) -> bytes:
    """The value, without its name; `extended` for BODYSTRUCTURE."""
    if part.is_multipart:
        return _format_multipart(part, extended)
    return _format_single(part, extended)


def format_structure_piece(part: Part, extended: bool) -> bytes:
    """`BODYSTRUCTURE (…)` or `BODY (…)`, a piece for `format_fetch`."""
    name = b"BODYSTRUCTURE " if extended else b"BODY "
    return name + format_body_structure(part, extended)


# body-type-mpart = 1*body SP media-subtype [SP body-ext-mpart]
def _format_multipart(part: Part, extended: bool) -> bytes:
    children = b"".join([format_body_structure(child, extended) for child in part.children])
    pieces = [children, string(part.media[1])]
    if extended:
        pieces += [_format_parameters(part.parameters), *_format_extension(part)]
    return b"(" + b" ".join(pieces) + b")"


# body-type-1part = (body-type-basic / body-type-msg / body-type-text) [SP body-ext-1part]
# body-fields = body-fld-param SP body-fld-id SP body-fld-desc SP body-fld-enc SP body-fld-octets
def _format_single(part: Part, extended: bool) -> bytes:
    pieces = [
        string(part.media[0]),
        string(part.media[1]),
        _format_parameters(part.parameters),
        nstring(part.content_id),
        nstring(part.description),
        string(part.encoding),
        b"%d" % part.size,
    ]
    if part.is_message:
        inner = part.children[0]
        if inner.envelope is not None:
            pieces.append(format_envelope(inner.envelope))
        pieces += [format_body_structure(inner, extended), b"%d" % part.lines]
    elif part.media[0] == b"TEXT":
        pieces.append(b"%d" % part.lines)
    if extended:
        pieces += [nstring(part.md5), *_format_extension(part)]
    return b"(" + b" ".join(pieces) + b")"


# body-fld-dsp SP body-fld-lang SP body-fld-loc
def _format_extension(part: Part) -> tuple[bytes, bytes, bytes]:
    disposition = b"NIL"
    if part.disposition is not None:
        word, parameters = part.disposition
        disposition = b"(%s %s)" % (string(word), _format_parameters(parameters))
    languages = b"NIL"
    if len(part.languages) == 1:
        languages = string(part.languages[0])
    elif part.languages:
        languages = b"(" + b" ".join(map(string, part.languages)) + b")"
    return disposition, languages, nstring(part.location)


# body-fld-param = "(" string SP string *(SP string SP string) ")" / nil
def _format_parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    each = [string(name) + b" " + string(value) for name, value in parameters]
    return b"(" + b" ".join(each) + b")"
