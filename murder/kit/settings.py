"""Keys that a store of this kit has in its table of murder.toml: each is said once, for the `Settings` of every such store.

writers: int = writers_option()
"""

from dataclasses import field


def writers_option() -> int:
    """How many threads make changes durable."""
    return field(
        default=8, metadata={"doc": "Users whose changes are made durable at the same time."}
    )


def expunged_bytes_option() -> int:
    """Octets that a `Keeper` holds of expunged messages, of each user."""
    return field(
        default=64 * 1024 * 1024,
        metadata={
            "doc": "Octets of expunged messages that stay readable for sessions that have not been told yet, ten minutes "
            "at most, of each user; 0: none."
        },
    )


def max_open_option(files: str) -> int:
    """How many users' `files` ("databases") a worker keeps open."""
    return field(
        default=500, metadata={"doc": f"Users' {files} kept open, each worker (two files each)."}
    )
