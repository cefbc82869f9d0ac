"""The master of the list, as a backend announces its mailboxes to it."""

from typing import Protocol


class Master(Protocol):
    """The master as this file needs it. Methods raise Refusal (the master said NO) or UpstreamFailure."""

    async def reserve(self, name: bytes, raw_location: bytes) -> None:
        """RFC 3656 §4.9. Raises Refusal where another server has it, UpstreamFailure."""
        ...

    async def activate(self, name: bytes, raw_location: bytes, raw_acl: bytes) -> None:
        """RFC 3656 §4.1; as `reserve`."""
        ...

    async def deactivate(self, name: bytes, raw_location: bytes) -> None:
        """RFC 3656 §4.3; as `reserve`."""
        ...

    async def delete(self, name: bytes) -> None: ...
