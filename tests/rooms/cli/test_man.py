"""Manual pages: nothing that --help or murder.toml has is missing, and nothing becomes a request of roff by chance.

What `man` and `mandoc` make of them is in tests/install/test_debian.py.
"""

import dataclasses
import re

import pytest

from murder.admin.cli.man import PAGES, escaped, format_page
from murder.admin.cli.program import COMMANDS
from murder.config.load import SECTIONS


def plain(page: str) -> str:
    """As it is read: without roff's own words."""
    text = re.sub(r"\\f[BRI]", "", format_page(page, "2026-11-29"))
    return text.replace("\\-", "-").replace("\\(dq", '"').replace("\\e", "\\")


def test_every_command_is_on_a_page() -> None:
    text = plain("murder.1")
    for name in COMMANDS:
        assert re.search(rf'^\.SS "?murder {name}\b', text, re.M), name
    assert "murder ca issue [OPTIONS] NAME" in text and "--role" in text
    assert "murder ctl mailbox move" in plain("murder-ctl.1")


def test_every_key_is_on_the_page_of_the_configuration() -> None:
    text = plain("murder.toml.5")
    for name, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if "doc" in field.metadata:
                assert re.search(rf"^\.BR? {field.name}\b", text, re.M), (name, field.name)
    assert "[plugins.store_spool]" in text


@pytest.mark.parametrize("page", PAGES)
def test_only_words_of_roff_begin_with_a_dot(page: str) -> None:
    text = format_page(page, "2026-11-29")
    words = {line.split(" ")[0] for line in text.splitlines() if line.startswith((".", "'"))}
    known = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I", ".nf", ".fi", ".RS", ".RE"}
    assert words <= known
    assert text.splitlines()[0].startswith('.TH "')


def test_a_line_of_text_stays_text() -> None:
    assert escaped(".so /etc/shadow") == "\\&.so /etc/shadow"
    assert escaped("'quoted'") == "\\&'quoted'"
    assert escaped("a\\b --c") == "a\\eb \\-\\-c"
