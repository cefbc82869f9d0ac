"""Authentication: the host's PAM is asked, in helper processes.

`pam_authenticate` and `pam_acct_mgmt` must both agree. A helper that does not answer in time is killed, and the next
question begins another. Helpers are the node's user: a module that wants root (pam_unix reads /etc/shadow for others only
then) is better asked by saslauthd (`auth_saslauthd`), which is root.
"""

from plugins.auth_pam.hooks import Settings, make_auth_backend

__all__ = ["Settings", "make_auth_backend"]
