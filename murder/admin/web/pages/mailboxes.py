"""Users and mailboxes: found, looked at, their rights and quotas, deleted and brought back."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from murder.admin.operate import mailboxes
from murder.admin.operate.backends import backends_of
from murder.admin.operate.grants import Grant, grants_of, hand_on
from murder.admin.operate.moves import chosen
from murder.admin.operate.parts import rows_about, rows_below, rows_deleted
from murder.admin.operate.quotas import RESOURCES, Quota, parse_limits, quotas_of
from murder.admin.operate.reach import Reach
from murder.admin.operate.users import users_in
from murder.admin.operate.wording import count
from murder.admin.web.desk import Desk, Page
from murder.admin.web.pages.walks import (
    after_in,
    mailboxes_behind,
    part,
    short_list,
    users_behind,
)
from murder.admin.web.rendering import paged
from murder.errors import BadSyntax, Code, Refusal
from murder.model.acl import format_rights
from murder.model.entry import MailboxEntry
from murder.model.name import MailboxName, inbox_of, is_below, is_deleted, is_inbox, owner_of
from murder.node.pages.http import Response
from murder.wire import mutf7

MAX_FIND: Final = 200
MAX_SHOWN: Final = 500  # of a plan


def link_name(reach: Reach, name: MailboxName) -> str:
    """A mailbox in a link: what `Reach.name` reads back as the same."""
    return reach.external(name).decode("utf-8", "surrogateescape")


def row_of(reach: Reach, row: MailboxEntry) -> Mapping[str, Any]:
    """A line of a table."""
    return {
        "name": reach.shown(row.name),
        "link": link_name(reach, row.name),
        "server": row.server,
        "partition": row.location.partition,
        "is_active": row.is_active,
    }


def digest_of(rows: Iterable[MailboxEntry], *more: str) -> str:
    """Of a plan, so that what is done is what was shown."""
    words = [f"{row.name!r} {row.server}" for row in rows]
    return hashlib.sha256("\n".join([*words, *more]).encode("utf-8", "replace")).hexdigest()


def check_digest(desk: Desk, digest: str) -> None:
    """Raises Refusal where things have changed since the plan was shown."""
    if desk.form.get("plan") != digest:
        text = "What there is has changed since the plan was shown: look at it again"
        raise Refusal(Code.IN_USE, text)


# --- found


async def list_users(desk: Desk) -> Response:
    """Those in whose name the words stand."""
    reach, find = await desk.reach(), desk.fields.get("find", "")
    rows = await short_list(reach)
    if rows is None:
        some, after = await users_behind(reach, after_in(desk, reach), find)
        return desk.page("users.html", page=part(desk, reach, some, after), find=find)
    users = await asyncio.to_thread(users_in, rows)
    if find:
        users = [user for user in users if find.lower() in user.user.lower()]
    return desk.page("users.html", page=paged(users, desk.path, desk.fields), find=find)


async def list_mailboxes(desk: Desk) -> Response:
    """By a part of their name or a pattern, of one backend or all; or those that wait for their removal."""
    reach, fields = await desk.reach(), desk.fields
    find, server, deleted = (fields.get(name, "") for name in ("find", "server", "deleted"))
    if len(find) > MAX_FIND:
        raise BadSyntax(f"A name has {MAX_FIND} characters at most")

    def fits(rows: Sequence[MailboxEntry]) -> list[MailboxEntry]:
        fitting = _found(reach, rows, find, bool(deleted))
        return [row for row in fitting if row.server == server] if server else fitting

    rows = await short_list(reach)
    if rows is None:
        rows, after = await mailboxes_behind(reach, after_in(desk, reach), fits)
        page = part(desk, reach, rows, after)
    else:
        page = paged(await asyncio.to_thread(fits, rows), desk.path, fields)
    backends = await _servers(reach) or await asyncio.to_thread(backends_of, reach, rows)
    return desk.page(
        "mailboxes.html",
        page=page,
        rows=[row_of(reach, row) for row in page.rows],
        find=find,
        server=server,
        deleted=deleted,
        backends=sorted({*backends, server} - {""}),
    )


def _found(
    reach: Reach, rows: Sequence[MailboxEntry], find: str, deleted: bool
) -> list[MailboxEntry]:
    if deleted:
        resting = [row for row in rows if is_deleted(row.name)]
        return [row for row in resting if find.lower() in reach.shown(row.name).lower()]
    if not find:
        return [row for row in rows if not is_deleted(row.name)]
    what = mutf7.encode(find).decode("ascii", "replace")
    try:
        return chosen(reach, rows, what if "*" in what or "%" in what else f"*{what}*")
    except Refusal as refusal:
        if refusal.code is not Code.NONEXISTENT:
            raise
        return []


async def show_user(desk: Desk) -> Response:
    """One user: where they are, how much they have, their mailboxes."""
    reach, user = await desk.reach(), desk.field("name")
    inbox = inbox_of(user)
    rows = [row for row in await rows_below(reach, inbox) if is_below(row.name, inbox)]
    if not rows:
        reach.check_user(user)
        raise Refusal(Code.NONEXISTENT, f"No user {user} has mailboxes here")
    page = paged(rows, desk.path, desk.fields)
    details = await mailboxes.show(reach, rows[0].name)
    return desk.page(
        "user.html",
        name=user,
        link=link_name(reach, inbox),
        page=page,
        rows=[row_of(reach, row) for row in page.rows],
        details=details,
        quotas=quotas_of(details.quota),
        **await known_backends(reach, rows),
    )


async def _servers(reach: Reach) -> list[str]:
    """All backends, where the master tells them without their mailboxes; nothing where it does not."""
    counts = await reach.master.servers()
    return [] if counts is None else sorted({*counts, *reach.config.servers})


async def known_backends(reach: Reach, rows: Sequence[MailboxEntry]) -> Mapping[str, Any]:
    """Where something may go, `backends`, and whether these are `all_backends`: of a master that does not tell them (Cyrus,
    and an older version) there may be more than the configuration and these rows name, and another name may be given."""
    if backends := await _servers(reach):
        return {"backends": backends, "all_backends": True}
    everything = await short_list(reach, at_any_cost=False)
    if everything is None and not reach.config.servers:
        everything = await reach.heads()
    known = await asyncio.to_thread(backends_of, reach, rows if everything is None else everything)
    return {"backends": known, "all_backends": everything is not None}


async def show_mailbox(desk: Desk) -> Response:
    """One mailbox."""
    reach = await desk.reach()
    name = reach.name(desk.field("name"))
    details = await mailboxes.show(reach, name)
    own = quotas_of(details.quota)
    return desk.page(
        "mailbox.html",
        row=row_of(reach, details.entry),
        owner=owner_of(name) or "",
        is_inbox=is_inbox(name),
        details=details,
        acl=[(who, format_rights(rights)) for who, rights in sorted(details.acl.entries.items())],
        quotas=own,
        limits=_limits(own, reach.shown(name)),
        **await known_backends(reach, [details.entry]),
    )


def _limits(quotas: Mapping[str, Sequence[Quota]], root: str) -> Mapping[str, int]:
    """Of the mailbox's own root, as the form has them."""
    limits = quotas.get(root, ())
    return {limit.resource: limit.limit for limit in limits if limit.resource in RESOURCES}


# --- rights and quotas


async def set_acl(desk: Desk) -> Response:
    """Give somebody rights, or take theirs away."""
    reach = await desk.reach()
    given, who = desk.field("name"), desk.field("identifier")
    rights = "" if desk.form.get("remove") else desk.field("rights")
    async with desk.doing("setacl", f"{given} {who} {rights or 'removed'}"):
        await mailboxes.set_acl(reach, reach.name(given), who, rights)
    desk.session.notice(f"{who} has {rights or 'no rights any more'}.")
    return desk.go("/mailbox", name=given)


async def set_quota(desk: Desk) -> Response:
    """All limits at once; an empty field is none."""
    reach = await desk.reach()
    given = desk.field("name")
    texts = [
        f"{resource}={desk.form[resource]}" for resource in RESOURCES if desk.form.get(resource)
    ]
    limits = parse_limits(texts)
    async with desk.doing("setquota", " ".join([given, *texts])):
        await mailboxes.set_quota(reach, reach.name(given), limits)
    desk.session.notice(f"Limits: {', '.join(texts)}." if texts else "No limits any more.")
    return desk.go("/mailbox", name=given)


# --- deleted, and brought back


async def _doomed(reach: Reach, name: MailboxName) -> tuple[list[MailboxEntry], list[Grant]]:
    user = owner_of(name) if is_inbox(name) else None
    rows = await (rows_below(reach, name) if user is None else rows_about(reach, user))
    condemned = await asyncio.to_thread(mailboxes.doomed, rows, name)
    if not condemned:
        raise Refusal(Code.NONEXISTENT, f"The master knows no mailbox {reach.shown(name)}")
    if user is None:
        return condemned, []
    return condemned, await asyncio.to_thread(grants_of, rows, user)


def _digest(doomed: Sequence[MailboxEntry], grants: Sequence[Grant]) -> str:
    return digest_of(doomed, *(f"{grant.row.name!r} {grant.identifier}" for grant in grants))


async def plan_deletion(desk: Desk) -> Response:
    """What goes, and with a user the rights that others have given them."""
    reach = await desk.reach()
    name = reach.name(desk.field("name"))
    doomed, grants = await _doomed(reach, name)
    return desk.page(
        "delete.html",
        name=reach.shown(name),
        link=link_name(reach, name),
        total=len(doomed),
        rows=[row_of(reach, row) for row in reversed(doomed[-MAX_SHOWN:])],
        grants=[
            {"name": reach.shown(grant.row.name), "who": grant.identifier, "rights": grant.rights}
            for grant in grants[:MAX_SHOWN]
        ],
        all_grants=len(grants),
        plan=_digest(doomed, grants),
    )


async def delete(desk: Desk) -> Response:
    """What was shown."""
    reach = await desk.reach()
    given = desk.field("name")
    doomed, grants = await _doomed(reach, reach.name(given))
    check_digest(desk, _digest(doomed, grants))
    async with desk.doing("delete", given):
        said = await mailboxes.delete(reach, doomed)
        problems = await hand_on(reach, grants, None)
    desk.session.notice(f"{count(len(doomed), 'mailbox', 'mailboxes')} removed.")
    if " follows " in said:
        desk.session.notice(said, "caution")
    for problem in problems:
        desk.session.notice(problem, "bad")
    return desk.go("/mailboxes", deleted="1", find=given)


async def plan_return(desk: Desk) -> Response:
    """What comes back."""
    reach = await desk.reach()
    name = reach.name(desk.field("name"))
    rows = await rows_deleted(reach, name)
    back = await asyncio.to_thread(mailboxes.resting, reach, rows, name)
    return desk.page(
        "undelete.html",
        name=reach.shown(name),
        link=link_name(reach, name),
        total=len(back),
        rows=[(reach.shown(before), row.server) for before, row in back[:MAX_SHOWN]],
        plan=digest_of([row for _, row in back]),
    )


async def undelete(desk: Desk) -> Response:
    """What was shown."""
    reach = await desk.reach()
    given = desk.field("name")
    name = reach.name(given)
    rows = await rows_deleted(reach, name)
    back = await asyncio.to_thread(mailboxes.resting, reach, rows, name)
    check_digest(desk, digest_of([row for _, row in back]))
    async with desk.doing("undelete", given):
        said, _ = await mailboxes.undelete(reach, rows, name)
    desk.session.notice(f"{count(len(back), 'mailbox', 'mailboxes')} brought back.")
    if " follows " in said:
        desk.session.notice(said, "caution")
    return desk.go("/mailbox", name=given)


PAGES: Final = (
    Page("GET", "/users", list_users),
    Page("GET", "/user", show_user),
    Page("GET", "/mailboxes", list_mailboxes),
    Page("GET", "/mailbox", show_mailbox),
    Page("POST", "/mailbox/acl", set_acl),
    Page("POST", "/mailbox/quota", set_quota),
    Page("GET", "/mailbox/delete", plan_deletion),
    Page("POST", "/mailbox/delete", delete),
    Page("GET", "/mailbox/undelete", plan_return),
    Page("POST", "/mailbox/undelete", undelete),
)
