"""The THREAD response (RFC 5256 §4)."""

from collections.abc import Iterable

from murder.model.pieces import PIECE, let_go
from murder.model.query.thread import Thread


# thread-data = "THREAD" [SP 1*thread-list]
# thread-list = "(" (thread-members / thread-nested) ")"
# thread-members = nz-number *(SP nz-number) [SP thread-nested]; thread-nested = 2*thread-list
def format_thread(threads: Iterable[Thread]) -> bytes:
    """`* THREAD (2)(3 6 (4 23)(44 7 96))CRLF`. Does not recurse: threads may be very deep."""
    pieces: list[str] = []
    texts: list[
        str
    ] = []  # of some thousand each: one `join` of a million would hold the interpreter
    for thread in threads:
        _format_thread(thread, pieces)
        if len(pieces) > PIECE:
            texts.append("".join(pieces))
            let_go(pieces)
    text = "".join((*texts, *pieces))
    return f"* THREAD{' ' + text if text else ''}\r\n".encode("ascii")


def _format_thread(root: Thread, pieces: list[str]) -> None:
    waiting: list[Thread | str] = [root]
    while waiting:
        following = waiting.pop()
        if isinstance(following, str):
            pieces.append(following)
            continue
        pieces.append("(")
        thread: Thread | None = following
        space = ""
        while thread is not None:  # one line of descent
            if thread.number is not None:
                pieces.append(f"{space}{thread.number}")
                space = " "
            if len(thread.children) == 1:
                thread = thread.children[0]
                continue
            waiting.append(")")
            if thread.children:
                pieces.append(space)
                waiting.extend(reversed(thread.children))
            thread = None
