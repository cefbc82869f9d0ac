"""Regular expressions in linear time, by RE2: for patterns or texts that are somebody else's.

RE2 comes with the first expression: 2 MiB that a node without any does not have.
"""

from typing import Any, Final

MAX_MEMORY: Final = 256 * 1024  # octets of one compiled expression; RE2 gives up beyond


def clean(text: str) -> str:
    """Without octets that are no characters, one letter in place of each."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


def compile_linear(expression: str, *, is_case_blind: bool = False) -> Any:
    """RE2's own object, which has no types; it takes texts that are `clean`. Raises ValueError, with what is wrong, for what
    is no expression or too large."""
    import re2

    options = re2.Options()
    options.case_sensitive = not is_case_blind
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    options.dot_nl = True
    options.never_capture = False
    try:
        return re2.compile(clean(expression), options)
    except re2.error as error:
        text = error.args[0] if error.args else "unknown error"
        what = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise ValueError(what) from None
