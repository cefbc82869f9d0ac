"""Whose certificates a plugin believes: the file of authorities that its `ca` names, or the system's."""

import ssl
from pathlib import Path

from murder.errors import Code, Refusal


def context_believing(ca: Path | None, key: str) -> ssl.SSLContext:
    """To connect to servers whose certificates are signed by the authorities in `ca`, a PEM file; None: by the system's.
    `key` is where murder.toml names it. Raises Refusal with the cure."""
    try:
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        text = f"there is no file {ca}; set {key} to the PEM file of the authority, or take it out for the system's"
    except PermissionError:
        text = f"{ca} ({key}) may not be read; give it to the node's user, or `chmod a+r`: it is no secret"
    except ssl.SSLError as error:
        text = (
            f"{ca} ({key}) has no certificate in PEM form ({error.reason or error}); it begins with -----BEGIN "
            "CERTIFICATE-----, and `openssl x509 -inform DER` makes that of a binary one"
        )
    except OSError as error:
        text = f"{ca} ({key}) cannot be read: {error.strerror or error}; name the PEM file of the authority"
    raise Refusal(Code.CANNOT, text)
