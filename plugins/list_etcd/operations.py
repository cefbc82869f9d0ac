"""What a transaction of etcd is made of: guards, and what is done where they hold."""

from plugins.list_etcd.etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
)


def putting(key: bytes, value: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value))


def fetching(key: bytes) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key))


def removing(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


def same(key: bytes, value: bytes) -> Compare:
    return Compare(result=Compare.EQUAL, target=Compare.VALUE, key=key, value=value)


def absent(key: bytes) -> Compare:
    return Compare(result=Compare.EQUAL, target=Compare.CREATE, key=key, create_revision=0)
