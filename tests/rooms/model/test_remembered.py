"""A memory of what others chose: bounded in octets, whatever each weighs."""

from murder.model.remembered import ENTRY_OCTETS, Remembered


def test_it_works_out_once_and_forgets_the_oldest() -> None:
    asked: list[str] = []

    def work_out(key: str) -> int:
        asked.append(key)
        return len(key)

    remembered = Remembered(work_out, lambda key, _: len(key), 20 * (ENTRY_OCTETS + 1))
    assert [remembered("a"), remembered("a")] == [1, 1]
    assert asked == ["a"]
    for letter in "bcdefghijklmnopqrstu":
        remembered(letter)
    remembered("u")
    assert asked == list("abcdefghijklmnopqrstu")
    remembered("a")
    assert asked[-1] == "a"


def test_what_many_choose_never_holds_more_than_allowed() -> None:
    most = 100_000
    remembered = Remembered[bytes, bytes](lambda key: key, lambda key, _: len(key), most)
    for number in range(1000):
        remembered(b"%05d" % number * 200)
        held = {**remembered._young, **remembered._old}
        assert sum(len(key) + ENTRY_OCTETS for key in held) <= most


def test_what_is_larger_than_the_whole_memory_is_not_kept() -> None:
    remembered = Remembered[bytes, bytes](lambda key: key, lambda key, _: len(key), 1000)
    remembered(b"x" * 2000)
    assert remembered.octets == 0
