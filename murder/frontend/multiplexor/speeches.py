"""The protocols that can be passed on as a whole, by their names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from murder.frontend.multiplexor.speech import IMAP_SPEECH, Speech

SPEECHES: Final[Mapping[str, Speech]] = MappingProxyType(
    {speech.protocol.name: speech for speech in (IMAP_SPEECH,)}
)
