"""IMAP as a multiplexor: who has logged in is passed on as a whole, with the server's own capabilities."""

from murder.model.identity import Login
from murder.roles.frontend.imap.dialogue import FrontendImap
from murder.roles.frontend.imap.refer import refer_login
from murder.roles.frontend.multiplexor.become import become_pipe
from murder.roles.frontend.multiplexor.imap import IMAP_SPEECH
from murder.roles.frontend.multiplexor.speech import Welcome
from murder.wire.imap.command import Command


async def enter(dialogue: FrontendImap, command: Command, login: Login) -> bool:
    """Whether the session is a pipe from now on. Raises Refusal (REFERRAL, where the policy sends them to their server),
    UpstreamFailure."""
    if dialogue.frontend.refers_unable:
        refer_login(dialogue, login)

    def say(welcome: Welcome) -> None:
        dialogue.send(b"%s %s\r\n" % (command.tag, welcome.line))

    return await become_pipe(dialogue, dialogue.frontend, login, IMAP_SPEECH, say)
