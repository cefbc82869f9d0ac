"""The log: structlog set up once a process, secrets masked, every event name in one list (`events`).

An event is a constant `noun.happened`; facts are keys. Bound once on accept: `role`, `protocol`, `cid`, `peer`; at
login: `user`. A line is never cut in two by one of another worker, and a log that cannot be written never stops the mail.
"""

from murder.log.events import EVENTS
from murder.log.lines import Log, encoder, logger, priority_of
from murder.log.plain import GATHER_S, Facts, Keep, gathering, plain_log, recent
from murder.log.structured import MASK, Listener, listen, mask_secrets, set_up

__all__ = [
    "EVENTS",
    "GATHER_S",
    "MASK",
    "Facts",
    "Keep",
    "Listener",
    "Log",
    "encoder",
    "gathering",
    "listen",
    "logger",
    "mask_secrets",
    "plain_log",
    "priority_of",
    "recent",
    "set_up",
]
