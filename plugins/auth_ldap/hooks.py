"""The plugin's hook."""

import ssl

from murder.api import hookimpl
from murder.errors import Code, Refusal
from plugins.auth_ldap.directory import Directory
from plugins.auth_ldap.settings import Settings


@hookimpl
def make_auth_backend(settings: Settings) -> Directory:
    """The backend for one process."""
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        text = f"{settings.ca} (plugins.auth_ldap.ca): {error}"
        raise Refusal(Code.CANNOT, text) from error
    return Directory(settings, context)


__all__ = ["Settings", "make_auth_backend"]
