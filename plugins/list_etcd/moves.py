"""Lists that come to etcd and leave it (`murder.api.list_log.TakesLists`).

The key `moving` has the token of the move and the number of its last step; each step is guarded by the revision of the one
before. So a step that is sent twice is done once, and what comes late, after others or when the move was given up, does
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from murder.api.list_log import BEGINNING, Position, Record
from murder.errors import Code, Refusal
from plugins.list_etcd.client import RANGE, TXN, Denied
from plugins.list_etcd.etcd_pb2 import Compare, KeyValue, RangeRequest, RequestOp, TxnRequest
from plugins.list_etcd.layout import behind, format_head, format_record
from plugins.list_etcd.operations import absent, fetching, putting, removing, same
from plugins.list_etcd.settings import Settings
from plugins.list_etcd.talk import FEW_CHANGES, LAST_PAGE, LONG_S, Talk

GIVEN_UP: Final = "this move of the mailbox list was given up"


class Moves(Talk):
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._moving: dict[str, tuple[int, int]] = {}  # a move's last step, and its revision

    def prepare(self, token: str) -> None:
        """Claims the prefix, and clears what an earlier attempt has left. Raises Refusal where there is a list already."""
        keys = self._keys
        forget = removing(keys.notes, behind(keys.notes))
        if not self._begins(token, [absent(keys.head)], [forget]):
            text = f"etcd has a mailbox list at {self._settings.prefix} already"
            raise Refusal(Code.ALREADY_EXISTS, text)
        for table in (keys.rows, keys.log):
            self._clear(token, table)

    def _begins(
        self, token: str, guards: Sequence[Compare], operations: Sequence[RequestOp]
    ) -> bool:
        """Whether this is the move that is under way now, whichever was before. False where a guard does not hold."""
        moving = self._keys.moving
        while True:
            rows = self._asked(RANGE, RangeRequest(key=moving)).kvs
            self._moving[token] = 0, rows[0].mod_revision if rows else 0
            try:
                is_done, others = self._done_once(token, guards, operations)
            except Denied as denied:
                raise self._refusal(denied) from denied
            if is_done:
                return True
            before = others[0].mod_revision if others else 0
            if before == self._moving[token][1]:
                return False

    def _done_once(
        self, token: str, guards: Sequence[Compare], operations: Sequence[RequestOp]
    ) -> tuple[bool, Sequence[KeyValue]]:
        """Whether the next step is done; else what is at `moving`. Raises Denied, UpstreamFailure."""
        moving = self._keys.moving
        number, revision = self._moving[token]
        value = _step_of(token, number + 1)
        last = Compare(result=Compare.EQUAL, target=Compare.MOD, key=moving, mod_revision=revision)
        request = TxnRequest(
            compare=[last, *guards],
            success=[*operations, putting(moving, value)],
            failure=[fetching(moving)],
        )
        answer = self._call(TXN, request)
        if answer.succeeded:
            self._moving[token] = number + 1, answer.header.revision
            return True, ()
        rows = answer.responses[0].response_range.kvs
        if rows and rows[0].value == value:  # an attempt whose answer was lost
            self._moving[token] = number + 1, rows[0].mod_revision
            return True, ()
        return False, rows

    def _clear(self, token: str, table: bytes) -> None:
        """Page by page: a million at once would hold everybody up."""
        while True:
            request = RangeRequest(
                key=table, range_end=behind(table), limit=LAST_PAGE, keys_only=True
            )
            rows = self._asked(RANGE, request, LONG_S).kvs
            if not rows:
                return
            self._step(token, [removing(rows[0].key, rows[-1].key + b"\0")])

    def put(self, token: str, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        row = self._keys.row
        last = dict(rows)  # etcd takes each key once in a transaction
        self._step(
            token,
            [
                putting(row(key), it) if it is not None else removing(row(key))
                for key, it in last.items()
            ],
        )

    def _step(self, token: str, operations: Sequence[RequestOp]) -> None:
        """Of a move, in as many transactions as it takes. Raises Refusal where it was given up."""
        if token not in self._moving:
            raise Refusal(Code.CANNOT, GIVEN_UP)
        at = 0
        most = self._most_changes
        while at < len(operations):
            some = operations[at : at + most]
            try:
                is_done, _ = self._done_once(token, (), some)
            except Denied as denied:
                large = ("too many operations", "too large", "larger than max")
                if most == 1 or not any(words in denied.text for words in large):
                    raise self._refusal(denied) from denied
                if "too many operations" in denied.text:
                    self._most_changes = min(self._most_changes, FEW_CHANGES)
                most = min(FEW_CHANGES, most // 2) or 1
                continue
            if not is_done:
                raise Refusal(Code.CANNOT, GIVEN_UP)
            at += len(some)

    def _is_moving(self, token: str) -> Compare:
        """Nothing has happened since its last step."""
        _, revision = self._moving.get(token, (0, -1))
        key = self._keys.moving
        return Compare(result=Compare.EQUAL, target=Compare.MOD, key=key, mod_revision=revision)

    def stored(self) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        """The rows as of one revision, in order, a page at a time."""
        keys = self._keys
        revision = self._asked(RANGE, RangeRequest(key=keys.head)).header.revision
        at = len(keys.rows)
        for page in self._pages(keys.rows, behind(keys.rows), revision, LONG_S):
            yield [(pair.key[at:], pair.value) for pair in page]

    def take_over(
        self, token: str, epoch: str, position: Position, notes: Mapping[str, bytes]
    ) -> None:
        """One transaction makes the head: from there on the list is etcd's. Told so again, where the answer was lost."""
        keys = self._keys
        self._step(token, [putting(keys.note(key), octets) for key, octets in notes.items()])
        head = format_head(epoch, position)
        puts = [putting(keys.head, head), removing(keys.moving), removing(keys.left)]
        if position != BEGINNING:  # a commit without rows, that what follows is behind
            anchor = format_record(Record(position, [], position))
            puts.append(putting(keys.commit(position.seq), anchor))
        request = TxnRequest(
            compare=[self._is_moving(token), absent(keys.head)],
            success=puts,
            failure=[fetching(keys.head)],
        )
        answer = self._asked(TXN, request)
        if not answer.succeeded:
            rows = answer.responses[0].response_range.kvs
            if not rows or rows[0].value != head:  # else an attempt whose answer was lost
                raise Refusal(Code.CANNOT, GIVEN_UP)

    def hand_over(self, token: str, epoch: str, position: Position) -> bool:
        """One transaction takes the head away, if nothing has been committed since; True also where the answer was lost."""
        keys = self._keys
        head = format_head(epoch, position)
        left = token.encode() + b" " + head
        self._begins(token, (), ())
        request = TxnRequest(
            compare=[same(keys.head, head), self._is_moving(token)],
            success=[removing(keys.head), removing(keys.moving), putting(keys.left, left)],
            failure=[fetching(keys.left)],
        )
        answer = self._asked(TXN, request)
        if answer.succeeded:
            return True
        rows = answer.responses[0].response_range.kvs
        return bool(rows) and rows[0].value == left

    def settle(self, token: str) -> bool:
        """Gives a move up that has not come to its end; whether etcd has the list."""
        keys = self._keys
        while True:
            rows = self._asked(RANGE, RangeRequest(key=keys.moving)).kvs
            if not rows or rows[0].value.partition(b" ")[0] != token.encode():
                break
            guard = same(keys.moving, rows[0].value)
            self._asked(TXN, TxnRequest(compare=[guard], success=[removing(keys.moving)]))
        return bool(self._asked(RANGE, RangeRequest(key=keys.head)).kvs)


def _step_of(token: str, number: int) -> bytes:
    return f"{token} {number}".encode()
