"""What Sieve scripts would do with a message, as `murder ctl sieve test` and `trace` say it."""

from collections.abc import Mapping
from typing import Final

import asyncclick as click

from murder.admin.cli.options import print_json
from murder.admin.cli.screen import plain
from murder.admin.operate.filtering import Trial
from murder.sieve import (
    Action,
    Discard,
    FileInto,
    Keep,
    Notify,
    Pipe,
    Redirect,
    Reject,
    Remember,
    Reply,
    Target,
)

TRIED: Final = (
    "script, server, scripts (a list of name, owner: in the order in which they run; the site's have no owner), actions (a "
    "list of action, script, line, include and what it is about; of fileinto kept: whether its mailbox takes none of it), "
    "steps (a list of script, line, include, word, outcome), asked (a list of question, answer, assumed), notes, faults (a "
    "list of script, problem), failure"
)


def tell(
    trial: Trial, facts: Mapping[str, object], as_json: bool, faults: tuple[tuple[str, str], ...]
) -> int:
    """`faults`: of scripts that could not be run at all. Exit code 1 after any."""
    faults += tuple(trial.faults)
    if as_json:
        _tell_json(trial, facts, faults)
        return 1 if faults else 0
    outcome = trial.outcome
    _tell_steps(trial, facts)
    for asked in trial.asked:
        assumed = " (assumed)" if asked.assumed else ""
        click.echo(plain(f"  {asked.question}? {asked.answer}{assumed}"))
    for note in outcome.notes:
        click.echo(plain(f"  note: {note}"))
    for name, problem in faults:
        said = "the message is kept" if outcome.failure else "the others decide"
        click.echo(plain(f"{name}: run-time error: {problem}; {said}"), err=True)
    for action in outcome.actions:
        about = _facts_in(trial, action)
        whose = _name_of(trial, action) if len(trial.scripts) > 1 else ""
        click.echo(plain(_shown(about, whose)))
    return 1 if faults else 0


def _tell_steps(trial: Trial, facts: Mapping[str, object]) -> None:
    """By script, in the order in which they run."""
    to = f"{facts['address']} -> {facts['mailbox']}: " if "address" in facts else ""
    at = f" at {facts['server']}" if facts.get("server") else ""
    is_one = len(trial.scripts) == 1
    if to and is_one:
        click.echo(plain(f"{to}script {trial.scripts[0].name}{at}"))
    elif to or not is_one:
        click.echo(plain(f"{to}{len(trial.scripts)} scripts{at}"))
    for number, script in enumerate(trial.scripts):
        steps = [step for step in trial.outcome.trace if step.script == number]
        if not is_one:
            whose = f"of {script.owner}" if script.owner else "of the site"
            nothing = "" if steps else " (no step)"
            click.echo(plain(f" {number + 1}. {script.name}, {whose}{nothing}"))
        for step in steps:
            where = f"{step.include}: " if step.include else ""
            what = "" if step.outcome == "done" else f": {step.outcome}"
            click.echo(plain(f"  {where}line {step.line}: {step.word}{what}"))


def _tell_json(
    trial: Trial, facts: Mapping[str, object], faults: tuple[tuple[str, str], ...]
) -> None:
    outcome, names = trial.outcome, [script.name for script in trial.scripts]
    result = {
        "scripts": [{"name": script.name, "owner": script.owner} for script in trial.scripts],
        "actions": [
            {**_facts_in(trial, action), "script": _name_of(trial, action)}
            for action in outcome.actions
        ],
        "steps": [
            {
                "script": names[step.script],
                "line": step.line,
                "include": step.include,
                "word": step.word,
                "outcome": step.outcome,
            }
            for step in outcome.trace
        ],
        "asked": [
            {"question": question.question, "answer": question.answer, "assumed": question.assumed}
            for question in trial.asked
        ],
        "notes": list(outcome.notes),
        "faults": [{"script": name, "problem": problem} for name, problem in faults],
        "failure": str(outcome.failure) if outcome.failure else None,
    }
    print_json({**facts, **result})


def _facts_in(trial: Trial, action: Action) -> dict[str, object]:
    """And whether the message is kept, because the mailbox takes none."""
    facts = facts_of(action)
    if isinstance(action, FileInto):
        facts["kept"] = action.target.mailbox in trial.not_filed
    return facts


def _name_of(trial: Trial, action: Action) -> str:
    """The script that says so; "" where none does."""
    return trial.scripts[action.place.script].name if action.place.line else ""


def _shown(facts: Mapping[str, object], script: str) -> str:
    """An action, for a person."""
    rest = [
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in facts.items()
        if key not in ("action", "line", "include", "implicit", "kept")
        and value not in ("", [], False)
    ]
    place = f"{script} " if script else ""
    place += f"{facts['include']} " if facts["include"] else ""
    line = [f"({place}line {facts['line']})"] if facts["line"] else []
    implicit = ["(no action says otherwise)"] if facts.get("implicit") else []
    kept = ["(which takes none of it: the message is kept)"] if facts.get("kept") else []
    return " ".join([str(facts["action"]), *rest, *line, *implicit, *kept])


def facts_of(action: Action) -> dict[str, object]:
    """What it is about, without the texts of messages."""
    about: dict[str, object]
    match action:
        case Keep(flags=flags, implicit=implicit):
            about = {"flags": list(flags or ()), "implicit": implicit}
        case FileInto(target=target, flags=flags):
            about = {**_target(target), "flags": list(flags or ())}
        case Redirect(address=address):
            about = {"to": address}
        case Reject(text=text):
            about = {"text": text}
        case Reply(recipient=recipient, copy=copy):
            about = {"to": recipient, **(_target(copy) if copy else {})}
        case Notify(method=method, recipients=recipients):
            about = {"method": method, "to": list(recipients)}
        case Pipe(program=program):
            about = {"program": program}
        case Discard() | Remember():
            about = {}
    word = "vacation" if isinstance(action, Reply) else type(action).__name__.lower()
    return {"action": word, "line": action.place.line, "include": action.place.include, **about}


def _target(target: Target) -> dict[str, object]:
    return {
        "mailbox": target.mailbox,
        "create": target.create,
        "mailbox_id": target.mailbox_id,
        "special_use": target.special_use,
    }
