"""What the site adds to its users' filters, as entries of the server for its administrators: `murder ctl sieve trace` reads
there which scripts run for a message that arrives, as this node has them in force.

Read only, and told to who asks for them by name, not to who asks for all below `/shared`:

    /shared/vendor/murder/sieve/scores              where spamtest and virustest find their scores, in JSON
    /shared/vendor/murder/sieve/before/0000/name    the first script that runs before each user's: its path
    /shared/vendor/murder/sieve/before/0000/script  and what it says
    /shared/vendor/murder/sieve/after/...           those behind each user's, alike
    /shared/vendor/murder/sieve/named/HEX           one of `[sieve] folder`: its name in UTF-8, as hexadecimal digits
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from murder.model.annotation import SITE_SCRIPTS, is_within, site_script_entry
from murder.roles.backend.scripts.site import Site
from murder.wire.imap.mailboxes.metadata import GetMetadataRequest, asked_of


def wants_site(request: GetMetadataRequest) -> bool:
    """Whether one of these is asked for."""
    return any(
        (asked_of(entry, request.depth)[0] + "/").startswith(SITE_SCRIPTS + "/")
        for entry in request.entries
    )


def site_entries(site: Site, request: GetMetadataRequest) -> dict[str, bytes]:
    """Those that are asked for, not more: they may be large."""
    asked = [asked_of(entry, request.depth) for entry in request.entries]
    return {
        entry: value
        for entry, value in _all_entries(site)
        if any(entry == name or is_within(entry, name, depth) for name, depth in asked)
    }


def _all_entries(site: Site) -> Iterator[tuple[str, bytes]]:
    policy = site.users.policy
    scores = {"spam": asdict(policy.spam), "virus": asdict(policy.virus)}
    yield f"{SITE_SCRIPTS}/scores", json.dumps(scores).encode()
    for order, scripts in (("before", site.before), ("after", site.after)):
        for number, script in enumerate(scripts):
            entry = f"{SITE_SCRIPTS}/{order}/{number:04}"
            yield f"{entry}/name", script.name.encode("utf-8", "surrogateescape")
            yield f"{entry}/script", script.octets
    for name, script in site.named.items():
        yield site_script_entry(name), script.octets
