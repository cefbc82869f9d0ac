"""The plugin's hook."""

from murder.api import hookimpl
from murder.api.authorities import context_believing
from plugins.auth_ldap.directory import Directory
from plugins.auth_ldap.settings import Settings


@hookimpl
def make_auth_backend(settings: Settings) -> Directory:
    """The backend for one process."""
    return Directory(settings, context_believing(settings.ca, "plugins.auth_ldap.ca"))


__all__ = ["Settings", "make_auth_backend"]
