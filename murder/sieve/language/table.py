"""All extensions: each is one value, and what is not listed here is not there."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from murder.sieve.check.spec import Extension
from murder.sieve.language import actions, control, flags, tests, variables
from murder.sieve.match.comparators import COMPARATORS, IMPLIED
from murder.sieve.match.kinds import COUNT, REGEX, VALUE

CORE: Final = Extension("", words=(*control.WORDS, *tests.WORDS, *actions.WORDS))

_LISTED: Final = (
    actions.FILEINTO,
    actions.COPY,
    tests.ENVELOPE,
    Extension("encoded-character"),  # check.templates
    flags.IMAP4FLAGS,
    Extension("index"),  # language.fields
    Extension("regex", matches=(REGEX,)),
    Extension("relational", matches=(VALUE, COUNT)),  # RFC 5231
    Extension("subaddress"),
    variables.VARIABLES,
)
EXTENSIONS: Final[Mapping[str, Extension]] = MappingProxyType({one.name: one for one in _LISTED})

# Words of the SIEVE capability (RFC 5804 §1.7): comparators that need no `require` are not told
CAPABILITIES: Final = frozenset(
    {*EXTENSIONS, *(f"comparator-{name}" for name in COMPARATORS if name not in IMPLIED)}
)
