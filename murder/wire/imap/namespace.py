"""The NAMESPACE response (RFC 2342 §5)."""

from collections.abc import Sequence

from murder.wire.token import quoted

Prefixes = Sequence[tuple[bytes, bytes]]  # (prefix, separator), both quotable


# Namespace = nil / "(" 1*("(" string SP (<"> QUOTED_CHAR <"> / nil) *(Namespace_Response_Extension) ")") ")"
def format_namespace(personal: Prefixes, users: Prefixes, shared: Prefixes) -> bytes:
    """`* NAMESPACE personal others sharedCRLF`."""
    return b"* NAMESPACE %s %s %s\r\n" % (_format(personal), _format(users), _format(shared))


def _format(prefixes: Prefixes) -> bytes:
    if not prefixes:
        return b"NIL"
    each = [b"(%s %s)" % (quoted(prefix), quoted(separator)) for prefix, separator in prefixes]
    return b"(" + b"".join(each) + b")"
