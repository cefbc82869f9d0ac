"""Sieve: what becomes of a message, as its owner's scripts say it. RFC 5228 and its extensions.

A script and a message go in, a list of actions comes out. The room knows no IMAP, no sockets, no store, no clock: what a
script wants to know of the world is a question, at which the run stops until it has the answer.

    script = compile_script(octets)                    # raises BadScript: `problems`, each with line, column, text
    run = start([script], message, Envelope(sender, recipient), Circumstances(now=..., user=..., host=...))
    while True:
        found = run.advance()                          # as much as fits between two turns of an event loop
        if found is PAUSED:
            await rest()
        elif isinstance(found, Outcome):
            break
        elif isinstance(found, LongWork):
            run.answer(await in_a_thread(found.compute))
        else:                                          # a Question: MailboxExists, SeenBefore, ...
            run.answer(await answer_of(found))         # or run.fail("...") where it has none

`run_to_end(run, world)` does that where nobody waits. `found.actions` are what is to be done, in the script's order,
never empty: Keep, FileInto, Redirect, Discard, Reject, Reply (vacation), Notify, Remember (duplicate), Pipe. `action.key`
together with `found.key`, which is the message's, names a side effect: it is the same when the sender tries again.
`found.messages[action.version].pieces` is what is kept, filed or redirected: scripts may edit the message. After a run-time
error `found.failure` says where and what, and the only action is to keep the message as it came.

Several scripts (a site's before, the user's, a site's after) are given together: the next one runs if the message would be
kept. `ScriptCache` keeps programs by content. `CAPABILITIES` are the words of the SIEVE capability; a site takes out what it
does not want, adds `PROGRAMS` where it has some, and gives that to `compile_script`.

Where things stand: `grammar` is how a script is written, `language` the words there are (one file and one value for each
extension, listed in `language.table`), `check` holds a script against these and makes a program, `match` compares texts,
`run` is the machine.
"""

from murder.sieve.actions import (
    Action,
    Discard,
    FileInto,
    Keep,
    Notify,
    Once,
    Pipe,
    Place,
    Redirect,
    Reject,
    Remember,
    Reply,
    Target,
)
from murder.sieve.cache import ScriptCache
from murder.sieve.check.program import Script
from murder.sieve.interpreter import compile_script, run_to_end, start
from murder.sieve.language.arguments import list_name
from murder.sieve.language.table import CAPABILITIES, PROGRAMS
from murder.sieve.limits import Limits, Policy, Scale
from murder.sieve.problem import BadScript, Problem
from murder.sieve.questions import (
    Answer,
    InList,
    LargeWork,
    ListIsKnown,
    ListMembers,
    LongWork,
    MailboxExists,
    MailboxIdExists,
    Metadata,
    OwnAddresses,
    Question,
    RunProgram,
    ScriptNamed,
    SeenBefore,
    SpecialUseExists,
    World,
)
from murder.sieve.run.circumstances import Circumstances, Envelope, Failure, Outcome, Step
from murder.sieve.run.machine import PAUSED, Machine, Paused

__all__ = [
    "compile_script",
    "list_name",
    "Script",
    "ScriptCache",
    "BadScript",
    "Problem",
    "CAPABILITIES",
    "Limits",
    "Policy",
    "Scale",
    "start",
    "run_to_end",
    "Machine",
    "PAUSED",
    "Paused",
    "Envelope",
    "Circumstances",
    "Outcome",
    "Failure",
    "Step",
    "Action",
    "Keep",
    "FileInto",
    "Discard",
    "Reject",
    "Redirect",
    "Reply",
    "Notify",
    "Remember",
    "Once",
    "Pipe",
    "Place",
    "Target",
    "Question",
    "Answer",
    "World",
    "MailboxExists",
    "MailboxIdExists",
    "SpecialUseExists",
    "Metadata",
    "InList",
    "ListIsKnown",
    "ListMembers",
    "ScriptNamed",
    "SeenBefore",
    "OwnAddresses",
    "LargeWork",
    "LongWork",
    "RunProgram",
    "PROGRAMS",
]
