"""Whether a script is right: what is wrong with it, line by line, and which extensions are understood."""

from dataclasses import dataclass

from murder.net.turns import aside

EXTENSIONS: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found: with an error a script is not taken. One sentence for each, with its line."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def check_script(script: bytes) -> Checked:
    """In the thread for such work; the script's size is bounded by who takes it in."""
    return await aside(_check, script)


def _check(script: bytes) -> Checked:
    if b"\0" in script:
        return Checked((f"line {script.count(10, 0, script.index(0)) + 1}: a NUL",))
    try:
        script.decode("utf-8")
    except UnicodeDecodeError as error:
        line = script.count(b"\n", 0, error.start) + 1
        return Checked((f"line {line}: a script is UTF-8",))
    return Checked()
