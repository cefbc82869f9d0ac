"""What a master may have lost is counted until it is back, where it is known what it was."""

from murder.roles.mupdate.database.change import PutNote
from murder.roles.mupdate.database.lacking import (
    MAX_BACK,
    Lost,
    mark_lacking,
    mark_lost,
    told_lacking,
)

WITHIN_S = 3600.0


def test_what_is_back_is_counted_no_more() -> None:
    notes, here = dict[str, bytes](), set[bytes]()

    def put(*steps: PutNote) -> None:
        notes.update({step.key: step.octets for step in steps})

    lost = Lost(notes.get, here.__contains__)
    assert lost.count(WITHIN_S) == 0
    keys = [b"k\n%d" % number for number in range(2 * MAX_BACK)]
    mark = mark_lacking(len(keys))
    put(mark, mark_lost(keys, mark))
    assert lost.count(WITHIN_S) == len(keys)
    assert lost.count(0) == 0
    here |= set(keys[1:])
    assert [lost.count(WITHIN_S) for _ in range(4)][-1] == 1
    here.clear()  # what was seen once has been deleted since
    here.add(keys[0])
    assert lost.count(WITHIN_S) == 0
    put(mark_lacking(7, 1.0 + float(mark.octets.split()[0])))  # of another moment: not known which
    here |= set(keys)
    assert lost.count(WITHIN_S) == 7


def test_a_number_of_thousands_of_digits_is_nothing_that_anybody_has_noted() -> None:
    """Python makes no number of it, and takes long for those that it does."""
    assert told_lacking(None, b"7", b"0") is not None
    for count, age in ((b"9" * 5000, b"0"), (b"7", b"9" * 5000), (b"0" * 4000 + b"7", b"0")):
        assert told_lacking(None, count, age) is None
