"""What `murder plugin new` writes: a plugin of each kind that loads, passes its contract, and says what to change."""

import pkgutil
from typing import Final

from murder.api.kinds.kind import Kind
from murder.hooks import BUNDLED_PACKAGE

HEAD: Final = '''"""@TITLE@

Use it: put this file's folder into murder.toml and name the plugin there:

    [plugins]
    path = ["/etc/murder/plugins"]
@USE@

Check it: murder plugin check @MODULE@.py
A plugin imports murder.api, murder.model and murder.errors, and nothing else of murder.
"""
'''


def format_plugin(kind: Kind, name: str) -> str:
    """The text of a new plugin of that kind; its module is `<kind>_<name>`."""
    module = f"{kind.name}_{name}"
    use = f'    use = ["{module}", …]  # before those that are there'
    if kind.key:
        section, _, key = kind.key.partition(".")
        use = f'\n    [{section}]\n    {key} = "{module}"'
    text = HEAD.replace("@TITLE@", kind.title).replace("@USE@", use) + kind.template
    if kind.based_on:
        text += _without_docstring(kind.based_on)
    words = "".join(word.capitalize() for word in name.split("_"))
    names = {
        "@MODULE@": module,
        "@NAME@": name,
        "@CLASS@": words + kind.name.capitalize(),
        "@MECHANISM@": "X-" + name.upper()[:18],
    }
    for mark, word in names.items():
        text = text.replace(mark, word)
    return text


def _without_docstring(file: str) -> str:
    """A bundled plugin's text behind its first docstring."""
    source = (pkgutil.get_data(BUNDLED_PACKAGE, file) or b"").decode("utf-8")
    _docstring, _, rest = source.removeprefix('"""').partition('"""\n')
    return rest
