"""What a transaction of etcd is made of: guards, and what is done where they hold."""

from plugins.list_etcd.etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
)


def putting(key: bytes, value: bytes) -> RequestOp:
    """A key gets this value, whether it was there or not."""
    return RequestOp(request_put=PutRequest(key=key, value=value))


def fetching(key: bytes) -> RequestOp:
    """What a key has, told with the answer: in the place of a second question."""
    return RequestOp(request_range=RangeRequest(key=key))


def removing(key: bytes, end: bytes = b"") -> RequestOp:
    """A key, or all from it up to `end`, which stays."""
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


def same(key: bytes, value: bytes) -> Compare:
    """The guard that a key has this value still."""
    return Compare(result=Compare.EQUAL, target=Compare.VALUE, key=key, value=value)


def absent(key: bytes) -> Compare:
    """The guard that a key is not there."""
    return Compare(result=Compare.EQUAL, target=Compare.CREATE, key=key, create_revision=0)
