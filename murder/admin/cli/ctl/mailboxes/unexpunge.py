"""`murder ctl mailbox unexpunge`: expunged messages come back, as long as their backend keeps them."""

from datetime import datetime

import asyncclick as click

from murder.admin.cli.ctl.reaching import operator_options
from murder.admin.cli.options import json_option, print_json, print_table, say
from murder.admin.cli.screen import count, octets, plain
from murder.admin.cli.span import Span
from murder.admin.operate.reach import Reach
from murder.admin.operate.unexpunge import bring_back, kept
from murder.errors import BadSyntax
from murder.wire.imap.seqset import read_ranges

EVERYTHING = "1:*"


class UidSet(click.ParamType[str]):
    """UIDs as in IMAP."""

    name = "uids"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            if not value:
                return value
            read_ranges(value.encode())
        except BadSyntax:
            self.fail(f"{value!r}: say 7, 3:9 or 3:9,12", param, ctx)
        return value


@click.command()
@operator_options
@click.argument("name")
@click.option(
    "--uid", "uids", type=UidSet(), default="", help="These, by the UIDs they had: 7, 3:9."
)
@click.option(
    "--since", type=Span(), default=0.0, help="Expunged not longer ago: 90s, 30m, 12h, 7d."
)
@click.option("--all", "everything", is_flag=True, help="All that are kept.")
@click.option("--list", "only_list", is_flag=True, help="Show them; the same without any option.")
@json_option(
    "mailbox and restored, a list of before (the UID it had) and uid; to list: mailbox and kept, a list of uid, "
    "expunged (when), size, subject, from"
)
async def unexpunge(
    reach: Reach,
    name: str,
    uids: str,
    since: float,
    everything: bool,
    only_list: bool,
    as_json: bool,
) -> int:
    """Bring back messages that were expunged from a mailbox, as long as its backend keeps them (`[backend]
    expunged_keep_s`). They are new messages to clients, with new UIDs, and their flags but \\Deleted; the quota does not
    stop them.

    \b
    murder ctl mailbox unexpunge user/anna                 # what is kept
    murder ctl mailbox unexpunge user/anna --since 2h
    murder ctl mailbox unexpunge user/anna --uid 3:9,12
    """
    canonical = reach.name(name)
    name_shown = reach.shown(canonical)
    chosen, within_s = uids or EVERYTHING, int(since)
    if only_list or not (uids or since or everything):
        return await _list(reach, name, chosen, within_s, as_json)
    back = await bring_back(reach, canonical, chosen, within_s)
    facts = {"mailbox": name_shown, "restored": [{"before": old, "uid": new} for old, new in back]}
    line = f"{count(len(back), 'message')} back in {name_shown}"
    if not back:
        say(as_json, facts, f"Nothing of that is kept in {name_shown}")
        return 1
    return say(as_json, facts, line)


async def _list(reach: Reach, name: str, uids: str, within_s: int, as_json: bool) -> int:
    canonical = reach.name(name)
    messages = await kept(reach, canonical, uids, within_s)
    if as_json:
        facts = [
            {
                "uid": message.uid,
                "expunged": message.at.isoformat(),
                "size": message.size,
                "subject": message.subject,
                "from": message.sender,
            }
            for message in messages
        ]
        print_json({"mailbox": reach.shown(canonical), "kept": facts})
        return 0
    rows = [
        [
            str(message.uid),
            _local(message.at),
            octets(message.size),
            plain(message.sender),
            plain(message.subject),
        ]
        for message in messages
    ]
    print_table(
        ("UID", "expunged", "size", "from", "subject"),
        rows,
        spare=("size", "from"),
        empty=f"Nothing that was expunged from {reach.shown(canonical)} is kept.",
    )
    return 0


def _local(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")
