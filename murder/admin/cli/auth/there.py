"""A command line that is run at other hosts of the murder, by ssh or what stands in for it."""

import asyncio
import shlex
from collections.abc import Sequence
from typing import Final

import asyncclick as click

from murder.admin.cli.options import print_json

THERE_S: Final = 60.0

via_option = click.option(
    "--via", default="ssh", show_default=True, help="What runs a command line at a host: VIA HOST …"
)


async def at_hosts(
    hosts: Sequence[str], via: str, line: str, text: bytes, done: str, as_json: bool
) -> int:
    """Run `line` at all of them at once, with `text` as its input, and say how that went; the exit code."""
    problems = await asyncio.gather(
        *(run_there([*shlex.split(via), host, *shlex.split(line)], text) for host in hosts)
    )
    rows = [
        {"host": host, "problem": problem} for host, problem in zip(hosts, problems, strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['host']}: {row['problem'] or done}", err=bool(row["problem"]))
    return 1 if any(problems) else 0


async def run_there(words: list[str], text: bytes = b"") -> str:
    """What went wrong; nothing if it went well."""
    return (await heard_there(words, text))[1]


async def heard_there(words: list[str], text: bytes = b"") -> tuple[bytes, str]:
    """What it has written, and what went wrong; nothing if it went well."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(THERE_S):
            written, said = await process.communicate(text)
    except TimeoutError:
        process.kill()
        return b"", f"no end within {THERE_S:g} s"
    except OSError as problem:
        return b"", f"{words[0]}: {problem.strerror}"
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return b"", lines[-1] if lines else f"exit code {process.returncode}"
    return written, ""
