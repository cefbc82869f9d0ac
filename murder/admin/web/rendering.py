"""Templates to HTML. Every value is escaped, and what would turn text around or hide is shown as what it is."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from murder.admin.operate.wording import count, octets, plain, seconds
from murder.admin.web.forms import Fields, format_query

FILES: Final = files("murder.admin.web") / "files"
TEMPLATES: Final = files("murder.admin.web") / "templates"
PER_PAGE: Final = 50
MAX_TEXT: Final = 2000  # characters of one value

T = TypeVar("T")


def _shown(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return plain(value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…")


def _when(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""


def _stamp(at: object) -> str:
    """An `at` of a trail, to the second."""
    return str(at or "")[:19].replace("T", " ")


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def environment() -> Environment:
    """One a process."""
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_source),
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(octets=octets, seconds=seconds, when=_when, clock=_clock, stamp=_stamp)
    made.globals.update(count=count, query=format_query)
    return made


@dataclass(frozen=True, slots=True)
class Paged:
    """Some of what was found, and the ways to more."""

    rows: Sequence[Any]
    first: int
    total: int
    before: str = ""
    after: str = ""


def paged(rows: Sequence[T], path: str, fields: Fields, per_page: int = PER_PAGE) -> Paged:
    """The page that `fields` names, of as many as there are."""
    wanted = fields.get("page", "")
    last = max(0, (len(rows) - 1) // per_page)
    page = (
        min(int(wanted), last) if wanted.isascii() and wanted.isdigit() and len(wanted) < 9 else 0
    )
    start = page * per_page

    def to(number: int) -> str:
        return format_query(path, {**fields, "page": str(number)})

    return Paged(
        rows[start : start + per_page],
        start + 1,
        len(rows),
        to(page - 1) if page else "",
        to(page + 1) if page < last else "",
    )


def render(made: Environment, name: str, words: Mapping[str, object]) -> bytes:
    """As octets of UTF-8; what is no character (a name that is no UTF-8) is replaced."""
    return made.get_template(name).render(words).encode("utf-8", "replace")
