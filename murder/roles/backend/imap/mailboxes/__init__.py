"""Commands on mailboxes: SELECT, LIST, STATUS, CREATE to RENAME, rights, quotas, annotations."""
