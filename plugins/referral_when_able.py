"""Referrals: for clients that have shown that they can follow one, by using RLIST or RLSUB (RFC 2193 §3).

Hardly any client does, so nearly everything is relayed; those that do talk to the backend directly.
"""

from murder.api import Conduct, ReferralQuestion, hookimpl


@hookimpl
def relay_or_refer(question: ReferralQuestion) -> Conduct | None:
    """Refer the able; leave all others to the next plugin (relayed, where there is none)."""
    return Conduct.REFER if question.referrals_on else None


@hookimpl
def refers_unable() -> bool | None:
    """Nobody else."""
    return False
