"""Names of character sets as mail has them, and the codec that understands each.

Shared by SEARCH (which must refuse what it does not know) and `mime` (which makes the best of it). Only codecs
from octets to text that cannot run away: no `idna`, no escapes, nothing that decompresses.
"""

import codecs
import encodings
import pkgutil
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

US_ASCII: Final = "US-ASCII"
UTF_8: Final = "UTF-8"
OFFERED: Final = (US_ASCII, UTF_8)  # told in BADCHARSET; more are understood

_MAX_NAME: Final = 40  # no registered name is longer; keeps the cache small
_NOT_CHARSETS: Final = frozenset(
    {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"}
)
_OTHER_NAMES: Final = {  # seen in mail, unknown to Python
    "x-gbk": "gb18030",
    "gb2312": "gb18030",  # mail labelled so is mostly GBK
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "windows-31j": "cp932",
    "ks_c_5601-1987": "cp949",
    "x-windows-949": "cp949",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "iso-8859-1": "cp1252",  # as every client and the WHATWG read it
    "x-mac-roman": "mac-roman",
    "utf8mb4": "utf-8",
    "cp-850": "cp850",
    "ansi_x3.4-1968": "ascii",
}


def codec_of(charset: str) -> str | None:
    """The codec's name for `bytes.decode`, or None where the character set is not known."""
    name = charset.strip().strip("\"'").lower()
    return _codec_of(name) if 0 < len(name) <= _MAX_NAME else None


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """Names that Python may have a codec for, as it normalizes them."""
    modules = (module.name for module in pkgutil.iter_modules(encodings.__path__))
    return frozenset((*modules, *aliases, *aliases.values()))


@lru_cache(maxsize=512)
def _codec_of(name: str) -> str | None:
    name = _OTHER_NAMES.get(name, name)
    # what is asked of Python is kept there for ever, and looked for among all modules
    plain = encodings.normalize_encoding(name)
    if plain not in _known() and plain.replace(".", "_") not in _known():
        return None
    try:
        codec = codecs.lookup(name)
        b"aa".decode(codec.name, "replace")  # LookupError where it does not give text
    except (LookupError, ValueError):
        return None
    return None if codec.name.replace("_", "-") in _NOT_CHARSETS else codec.name
