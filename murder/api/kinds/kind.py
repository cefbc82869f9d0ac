"""What a kind of plugin is: one value, of which everything about it is made.

To add a kind, write its Kind and put it into `table.KINDS`. From there its hook may be implemented, `murder plugin list`
names it, `murder plugin new` writes one, `murder plugin check` holds one to its contract, and the start says what is wrong.
"""

from dataclasses import dataclass

from murder.api.contract.check import Check
from murder.api.hookspecs import HookSpecs


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """`hook` is the one that makes a plugin to be of this kind; `specs` has its specification. `title` is the first line of
    what `murder plugin new` writes, and `template` the rest behind the head: `@MODULE@`, `@NAME@` and `@CLASS@` stand for
    the plugin's names. `based_on`: a bundled file in place of a template.

    `key`: the dotted key of murder.toml that names the one plugin of this kind; empty: `plugins.use` has any number.
    `several`: the key that names more than one in its place, in order. `prefix`: the key names plugins without it.
    `built_in`: the key's word for what murder does without a plugin. `role`: the one in which the keys count; empty: all.

    `makes`: the hook is called with `settings` and `data_dir` and returns an object that has `methods`; `checks` are
    given a function that makes one (in a folder of its own each time and started, where it `starts`). Else the hook decides,
    and they are given the hook.
    """

    name: str
    hook: str
    title: str
    checks: tuple[Check, ...]
    template: str = ""
    based_on: str = ""
    key: str = ""
    several: str = ""
    prefix: str = ""
    built_in: str = ""
    role: str = ""
    makes: bool = False
    methods: tuple[str, ...] = ()
    starts: bool = False
    specs: type = HookSpecs
