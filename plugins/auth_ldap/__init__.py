"""Authentication: an LDAP directory (OpenLDAP, 389, Active Directory) says who users are and checks their passwords.

A login searches the user's entry (`base`, `filter`) and binds as it; with `user_dn` it binds without a search. Groups come
from `member_of`, or from a search for groups, nested ones too. See `settings` for the keys.
"""

from plugins.auth_ldap.hooks import Settings, make_auth_backend

__all__ = ["Settings", "make_auth_backend"]
