"""All kinds of plugins, in the order in which they are told."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from murder.api.kinds.auth import AUTH
from murder.api.kinds.delivery import DELIVERY
from murder.api.kinds.events import EVENTS
from murder.api.kinds.kind import Kind
from murder.api.kinds.list_log import LIST
from murder.api.kinds.placement import PLACEMENT
from murder.api.kinds.referral import REFERRAL
from murder.api.kinds.sasl import SASL
from murder.api.kinds.service import SERVICE
from murder.api.kinds.store import STORE

KINDS: Final[tuple[Kind, ...]] = (
    *(AUTH, STORE, PLACEMENT, REFERRAL, SASL, DELIVERY, EVENTS),
    SERVICE,
    LIST,
)
BY_NAME: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in KINDS})
