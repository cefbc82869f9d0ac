"""How much one user may make: mailboxes, levels of names, subscriptions (the keys `max_…` of `[backend]`).

Administrators are exempt, and what moves here from another server. Knows no protocol.
"""

from collections.abc import Iterable
from itertools import islice

from murder.api.store import CountsSubscriptions, MailboxStore
from murder.errors import Code, Refusal
from murder.model.identity import Login
from murder.model.name import MailboxName, above_deleted, split_domain
from murder.net.turns import in_turns
from murder.roles.backend.hierarchy.intent import tree_of
from murder.roles.backend.shared import Backend


async def check_room_for_mailboxes(
    backend: Backend, login: Login, names: Iterable[MailboxName]
) -> None:
    """Whether so many more may be made in the trees that they are in: a user's, or one below a shared top level. Raises
    Refusal(LIMIT)."""
    if not login.is_admin:
        await check_room_for(backend, names)


async def check_room_for(backend: Backend, names: Iterable[MailboxName]) -> None:
    """As `check_room_for_mailboxes`, for who is no administrator."""
    limit, wanted = backend.config.max_mailboxes_per_user, dict[str, int]()
    for name in names:
        check_depth(backend, name)
        wanted[tree_of(name)] = wanted.get(tree_of(name), 0) + 1
    for tree, more in wanted.items():
        root = MailboxName(tree.encode("latin-1"))
        if await _count_below(backend, root, limit) + more > limit:
            raise Refusal(Code.LIMIT, f"A mailbox may have at most {limit} mailboxes below it")


def check_depth(backend: Backend, name: MailboxName) -> None:
    """Raises Refusal(LIMIT)."""
    levels, most = split_domain(name)[1].count(b".") + 1, backend.config.max_mailbox_depth
    if levels > most:
        raise Refusal(Code.LIMIT, f"A mailbox name may have {most} levels, not {levels}")


async def may_rest(backend: Backend, doomed: Iterable[MailboxName]) -> bool:
    """Whether these, deleted, may be kept for a while beside what is kept of the same trees."""
    names = list(doomed)
    limit = backend.config.max_mailboxes_per_user
    for tree in {tree_of(name) for name in names}:
        root = above_deleted(tree.encode("latin-1"))
        if await _count_below(backend, root, limit) + len(names) > limit:
            return False
    return True


async def _count_below(backend: Backend, root: MailboxName, most: int) -> int:
    """Exactly up to `most`; it is not counted on."""
    some = islice(backend.mailboxes.list.heads_below(root), most)
    return len([head async for head in in_turns(some)])


async def check_room_for_subscription(backend: Backend, login: Login, name: MailboxName) -> None:
    """Raises Refusal(LIMIT)."""
    most = backend.config.max_subscriptions_per_user
    if await _is_full(backend.store, login.user, name, most):
        raise Refusal(Code.LIMIT, f"A user may subscribe to at most {most} mailboxes")


async def _is_full(store: MailboxStore, user: str, name: MailboxName, most: int) -> bool:
    if isinstance(store, CountsSubscriptions):
        if await store.count_subscriptions(user, most) < most:
            return False
        return not await store.is_subscribed(user, name)
    present = await store.subscriptions(user)
    return len(present) >= most and name not in present
