"""Sections of a configuration whose keys are made of the list of protocols, so that no type checker knows them."""

from typing import Any

from murder.config import MupdateConfig
from murder.config.sections import FrontendConfig, ServerConfig
from murder.config.value import parse_endpoint


def server_section(**keys: Any) -> ServerConfig:
    """`[servers."…"]`: `server_section(address="127.0.0.1", imap=143)`."""
    return ServerConfig(**keys)


def frontend_section(**keys: Any) -> FrontendConfig:
    """`[frontend]`."""
    return FrontendConfig(**keys)


def near_master(address: str, user: str) -> MupdateConfig:
    """`[mupdate]` of who follows a master in this process, which lets them in with the password `secret`."""
    return MupdateConfig(
        master=parse_endpoint(address),
        master_auth="plain",
        master_user=user,
        master_password="secret",
        master_tls="none",
        retry_min_s=0.02,
        retry_max_s=0.1,
    )


def key_of(section: object, name: str) -> Any:
    """The value of such a key."""
    return getattr(section, name)
