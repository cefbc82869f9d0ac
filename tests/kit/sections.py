"""Sections of a configuration whose keys are made of the list of protocols, so that no type checker knows them."""

from typing import Any

from murder.config.sections import FrontendConfig, ServerConfig


def server_section(**keys: Any) -> ServerConfig:
    """`[servers."…"]`: `server_section(address="127.0.0.1", imap=143)`."""
    return ServerConfig(**keys)


def frontend_section(**keys: Any) -> FrontendConfig:
    """`[frontend]`."""
    return FrontendConfig(**keys)


def key_of(section: object, name: str) -> Any:
    """The value of such a key."""
    return getattr(section, name)
