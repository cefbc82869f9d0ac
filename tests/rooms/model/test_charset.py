"""Which names of character sets are understood."""

import encodings

import pytest

from murder.model.charset import codec_of


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf-8", "utf-8"),
        ("US-ASCII", "ascii"),
        ("iso-8859-1", "cp1252"),
        ('"ISO-2022-JP"', "iso2022_jp"),
        ("gb2312", "gb18030"),
        ("no-such-thing", None),
        ("", None),
        ("x" * 1000, None),
        ("\0", None),
        ("zip", None),
        ("rot13", None),
        ("base64", None),
        ("unicode_escape", None),
        ("idna", None),
    ],
)
def test_only_harmless_text_codecs_are_known(charset: str, codec: str | None) -> None:
    assert codec_of(charset) == codec


def test_a_name_that_is_no_codecs_is_not_asked_for() -> None:
    """Python keeps what it was asked for, for ever."""
    for number in range(1000):
        assert codec_of(f"x-none-{number}") is None
    assert not [name for name in encodings._cache if name.startswith("x_none")]
