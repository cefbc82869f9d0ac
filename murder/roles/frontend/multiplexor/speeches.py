"""The protocols that can be passed on as a whole, by their names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from murder.roles.frontend.multiplexor.imap import IMAP_SPEECH
from murder.roles.frontend.multiplexor.pop3 import POP3_SPEECH
from murder.roles.frontend.multiplexor.sieve import SIEVE_SPEECH
from murder.roles.frontend.multiplexor.speech import Speech

SPEECHES: Final[Mapping[str, Speech]] = MappingProxyType(
    {speech.protocol.name: speech for speech in (IMAP_SPEECH, POP3_SPEECH, SIEVE_SPEECH)}
)
