"""All extensions: each is one value, and what is not listed here is not there."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from murder.sieve.check.spec import Extension
from murder.sieve.language import (
    actions,
    body,
    control,
    dates,
    editing,
    fields,
    flags,
    include,
    lists,
    mailboxes,
    mime,
    notify,
    notify_draft,
    programs,
    rebuilding,
    refusing,
    scores,
    sending,
    tests,
    vacation,
    variables,
)
from murder.sieve.match.comparators import COMPARATORS, IMPLIED
from murder.sieve.match.kinds import COUNT, REGEX, VALUE

CORE: Final = Extension("", words=(*control.WORDS, *tests.WORDS, *actions.WORDS))

_LISTED: Final = (
    actions.FILEINTO,
    actions.COPY,
    tests.ENVELOPE,
    body.BODY,
    dates.DATE,
    editing.EDITHEADER,
    include.INCLUDE,
    lists.ENVIRONMENT,
    lists.EXTLISTS,
    lists.IHAVE,
    mailboxes.MAILBOX,
    mailboxes.MAILBOXID,
    mailboxes.MBOXMETADATA,
    mailboxes.SERVERMETADATA,
    mailboxes.SPECIAL_USE,
    mime.MIME,
    mime.FOREVERYPART,
    mime.EXTRACTTEXT,
    notify.ENOTIFY,
    notify_draft.NOTIFY,
    rebuilding.ENCLOSE,
    rebuilding.REPLACE,
    refusing.DUPLICATE,
    refusing.VND_DUPLICATE,
    refusing.EREJECT,
    refusing.REJECT,
    scores.SPAMTEST,
    scores.SPAMTESTPLUS,
    scores.VIRUSTEST,
    sending.FCC,
    vacation.VACATION,
    vacation.VACATION_SECONDS,
    Extension("imapsieve"),  # RFC 6785: nothing to say, but it can be required
    Extension("vnd.dovecot.environment", implies=("environment",)),
    Extension("encoded-character"),  # check.templates
    flags.IMAP4FLAGS,
    flags.IMAPFLAGS,
    fields.INDEX,
    Extension("regex", matches=(REGEX,)),
    Extension("relational", matches=(VALUE, COUNT)),  # RFC 5231
    tests.SUBADDRESS,
    variables.VARIABLES,
)
# Only where a site has programs that scripts may run
_PROGRAMS: Final = (programs.PIPE, programs.FILTER, programs.EXECUTE)
PROGRAMS: Final = frozenset(extension.name for extension in _PROGRAMS)

EXTENSIONS: Final[Mapping[str, Extension]] = MappingProxyType(
    {extension.name: extension for extension in (*_LISTED, *_PROGRAMS)}
)

# Words of the SIEVE capability (RFC 5804 §1.7): comparators that need no `require` are not told
CAPABILITIES: Final = frozenset(
    {
        *EXTENSIONS.keys() - PROGRAMS,
        *(f"comparator-{name}" for name in COMPARATORS if name not in IMPLIED),
    }
)
