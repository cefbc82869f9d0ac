"""What comes with a request, bounded: the query, a form (application/x-www-form-urlencoded), cookies."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from murder.errors import BadSyntax

MAX_FIELDS: Final = 200
FORM: Final = "application/x-www-form-urlencoded"

Fields = Mapping[str, str]


def parse_fields(text: str) -> Fields:
    """Of a query or a form; of a name that comes twice, the last. Raises BadSyntax."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="surrogateescape"
        )
    except ValueError:
        raise BadSyntax(f"more than {MAX_FIELDS} fields") from None
    return {name: value.strip() for name, value in pairs}


def parse_form(kind: str, body: bytes) -> Fields:
    """Raises BadSyntax."""
    if kind.partition(";")[0].strip().lower() != FORM:
        raise BadSyntax(f"a form is expected: {FORM}")
    return parse_fields(body.decode("ascii", "replace"))


def parse_cookies(header: str) -> Fields:
    """RFC 6265 §5.4; what is no pair is passed over, and of a name that comes twice the first counts."""
    cookies: dict[str, str] = {}
    for part in header.split(";")[:MAX_FIELDS]:
        name, equals, value = part.strip().partition("=")
        if equals:
            cookies.setdefault(name, value)
    return cookies


def format_query(path: str, fields: Fields) -> str:
    """A path with those fields that say something."""
    given = {name: value for name, value in fields.items() if value}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path
