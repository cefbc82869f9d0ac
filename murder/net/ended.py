"""What stands in a connection's slots when it is over: nobody who asks it has to look whether there is one."""

import asyncio


class Gone(asyncio.Transport):
    """In place of the transport of a connection that is over."""

    def is_closing(self) -> bool:
        return True

    def is_reading(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass

    abort = close


class Ended:
    """In place of the receiver of a connection that is over, or has none yet: with neither holding the other both are
    freed at once, not when somebody looks for cycles."""

    __slots__ = ()

    def begin(self) -> None:
        pass

    def received(self, data: bytes) -> None:
        pass

    def writable(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        pass
