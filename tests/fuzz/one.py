"""Fuzz one target for some seconds: with atheris (coverage-guided) where it is installed, else with hypothesis.

    python -m tests.fuzz.one NAME SECONDS FOLDER [SEED]

FOLDER keeps what atheris has come to know; the same SEED tries the same inputs first, 0 others each time. Ends with 0 when
nothing was found. A finding is told with its input.
"""

import contextlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MAX_OCTETS = 2048  # of an input before it is repeated
SLOW_S = 10  # one input that takes so long is a finding
MEMORY_MIB = 1500


def as_called(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The last octet says whether the rest is taken as it is or repeated to its full size."""
    from tests.fuzz.targets import long

    def called(octets: bytes) -> None:
        if octets and octets[-1] & 63 == 63:
            target(long(octets[:-1]))
        else:
            target(octets[:-1])

    return called


def with_atheris(name: str, seconds: int, folder: Path, first: int) -> None:
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["murder"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.seeds import SEEDS

    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed + b"\0")
        (corpus / f"long-{number}").write_bytes(seed + b"\x3f")
    words = [
        f"-max_total_time={seconds}",
        f"-seed={first}",
        f"-max_len={MAX_OCTETS}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={folder}/{name}-found-",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *words, str(corpus)], as_called(TARGETS[name]))
    atheris.Fuzz()  # ends the process


def with_hypothesis(name: str, seconds: int, first: int) -> None:
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    from tests.fuzz.seeds import SEEDS
    from tests.fuzz.targets import TARGETS

    called = as_called(TARGETS[name])
    piece = st.one_of(st.sampled_from(SEEDS[name]), st.binary(max_size=40))
    inputs = st.builds(
        lambda pieces, last: b"".join(pieces)[:MAX_OCTETS] + last,
        st.lists(piece, max_size=12),
        st.binary(min_size=1, max_size=1),
    )
    end, number = time.monotonic() + seconds, first
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(
            max_examples=200,
            deadline=SLOW_S * 1000,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def once(octets: bytes) -> None:
            called(octets)

        once()


def main() -> None:
    name, seconds = sys.argv[1], int(sys.argv[2])
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else Path(tempfile.mkdtemp())
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    if importlib.util.find_spec("atheris") is not None:
        with_atheris(name, seconds, folder, first)
    else:
        with contextlib.suppress(KeyboardInterrupt):
            with_hypothesis(name, seconds, first)


if __name__ == "__main__":
    main()
