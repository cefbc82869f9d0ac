"""A client that has just logged in becomes one end of a pipe."""

from collections.abc import Callable

from murder.errors import Code, Refusal
from murder.model.identity import Login
from murder.roles.frontend.multiplexor.pipe import Pipe
from murder.roles.frontend.multiplexor.reach import Caller
from murder.roles.frontend.multiplexor.speech import Speech, Welcome
from murder.roles.frontend.shared import Frontend
from murder.serve.client import ClientDialogue


async def enter_as_pipe(
    dialogue: ClientDialogue,
    frontend: Frontend,
    login: Login,
    speech: Speech,
    say: Callable[[Welcome], None],
    *,
    as_user: str = "",
    utf8: bool = False,
) -> bool:
    """As `become_pipe`, for who is not to be served within. Who has too many connections is refused by the protocol's own
    login, which tells them so: it comes next. Raises Refusal, UpstreamFailure."""
    if frontend.multiplexor is None or dialogue.is_for_within(login):
        return False
    try:
        return await become_pipe(dialogue, frontend, login, speech, say, as_user, utf8)
    except Refusal as refusal:
        if refusal.code is not Code.LIMIT:
            dialogue.log_not_served(login, refusal)
            raise
        return False


async def become_pipe(
    dialogue: ClientDialogue,
    frontend: Frontend,
    login: Login,
    speech: Speech,
    say: Callable[[Welcome], None],
    as_user: str = "",
    utf8: bool = False,
) -> bool:
    """Whether the connection is a pipe from now on, and `dialogue` over. False where they are to be served by commands: then
    nothing has been said or counted. `say` tells the client that they are in; `as_user` is what the server calls them, where
    that is not their name. Raises Refusal (LIMIT, where the user has too many connections), UpstreamFailure."""
    multiplexor = frontend.multiplexor
    if multiplexor is None:
        return False
    dialogue.count_in(login)
    reached = None
    try:
        caller = Caller.at(dialogue.connection)
        reached = await multiplexor.reach(login, caller, speech, as_user=as_user, utf8=utf8)
    finally:
        if reached is None:
            dialogue.count_out()
    if reached is None:
        return False
    upstream, welcome = reached
    say(welcome)
    pipe = Pipe(dialogue, frontend, speech, upstream.server, upstream.connection)
    pipe.take_count(dialogue)
    dialogue.hand_over(pipe)
    pipe.begin_pipe(login, upstream.take_rest())
    return True
