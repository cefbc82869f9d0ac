"""Pigeonhole's settings, as far as its tests set them, as our limits and policy."""

import re
from pathlib import Path
from typing import Any

from murder.sieve import Limits, Policy, Scale

# no setting of theirs: Pigeonhole 2.4 has another one than 2.3
STRING_COMPARATOR = "string_comparator"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "k": 1024, "M": 1 << 20, "B": 1}
_SENDERS = {"orig_recipient": "original", "user_email": "user"}


def number_of(text: str) -> int:
    found = re.match(r"\s*(\d+)\s*([a-zA-Z]?)", text)
    return int(found[1]) * _UNITS.get(found[2], 1) if found else 0


def _sender(config: dict[str, str], key: str, default: str) -> str:
    value = config.get(key, default) or default
    return _SENDERS.get(value, value)


def _scale(config: dict[str, str], name: str) -> Scale:
    prefix = f"sieve_{name}_"
    header, _, pattern = config.get(f"{prefix}status_header", "").partition(":")
    keys = ("max_value", "max_header", "score_max_value", "score_max_header")
    maximum = next((config[prefix + key] for key in keys if config.get(prefix + key)), "")
    texts = {
        int(match[1]): value
        for key, value in config.items()
        if (match := re.fullmatch(rf"{prefix}text_value/?(\d+)", key))
    }
    kind = config.get(f"{prefix}status_type", "score")
    return Scale(header.strip(), pattern.strip(), kind, maximum, texts)


def policy_of(config: dict[str, str]) -> Policy:
    config = {key: value.strip() for key, value in config.items()}

    def is_set(key: str) -> bool:
        return config.get(key, "no") == "yes"

    protected = {"received", "auto-submitted"}
    forbidden = config.get("sieve_editheader_forbid_delete", "").lower().split()
    added = config.get("sieve_editheader_forbid_add", "").lower().split()
    both = config.get("sieve_editheader_protected", "").lower().split()
    for name in config.get("sieve_editheader_header", "").split():
        key = f"sieve_editheader_header/{name}/"
        forbidden += [name.lower()] if is_set(f"{key}forbid_delete") else []
        added += [name.lower()] if is_set(f"{key}forbid_add") else []
    checks_recipient = config.get("sieve_vacation_check_recipient", "yes") == "yes"
    return Policy(
        string_comparator=config.get(STRING_COMPARATOR, "i;octet"),
        separator=config.get("recipient_delimiter", "+"),
        protected_fields=frozenset({*protected, *forbidden, *both}),
        not_added_fields=frozenset({*added, *both} - {"subject"}),
        vacation_minimum_s=number_of(config.get("sieve_vacation_min_period", "1d")),
        vacation_subject=config.get("sieve_vacation_default_subject", ""),
        vacation_subject_template=config.get("sieve_vacation_default_subject_template", ""),
        vacation_subject_characters=int(config.get("sieve_vacation_max_subject_codepoints", "256")),
        vacation_checks_recipient=checks_recipient
        and not is_set("sieve_vacation_dont_check_recipient"),
        vacation_uses_original=is_set("sieve_vacation_use_original_recipient"),
        vacation_names_from_header=is_set("sieve_vacation_to_header_ignore_envelope"),
        vacation_from="recipient" if is_set("sieve_vacation_send_from_recipient") else "null",
        notify_from=_sender(config, "sieve_notify_mailto_envelope_from", ""),
        redirect_from=_sender(config, "sieve_redirect_envelope_from", "sender"),
        spam=_scale(config, "spamtest"),
        virus=_scale(config, "virustest"),
    )


def limits_of(config: dict[str, str]) -> Limits:
    given: dict[str, Any] = {}
    for key, name in (
        ("sieve_variables_max_variable_size", "value_octets"),
        ("sieve_variables_max_value_size", "value_octets"),
        ("sieve_include_max_nesting_depth", "include_depth"),
        ("sieve_include_max_includes", "includes"),
        ("sieve_editheader_max_header_size", "header_octets"),
        ("sieve_notify_max_notifications", "notifications"),
        ("sieve_max_actions", "actions"),
        ("sieve_max_redirects", "redirects"),
    ):
        if config.get(key):
            given[name] = number_of(config[key])
    if "sieve_max_cpu_time" in config:
        given["steps"] = number_of(config["sieve_max_cpu_time"]) * 1_000_000
    return Limits(problems=100, **given)


def lists_of(config: dict[str, str]) -> dict[str, set[str]]:
    """External lists, in files of the dictionary's driver: a key in every other line."""
    found: dict[str, set[str]] = {}
    for name in config.get("sieve_extlists_list", "").split():
        path = config.get(f"sieve_extlists_list/{name}/dict/file/path")
        lines = Path(path).read_text().splitlines()[::2] if path else []
        found[name] = {line.rpartition("/")[2].lower() for line in lines}
    return found
