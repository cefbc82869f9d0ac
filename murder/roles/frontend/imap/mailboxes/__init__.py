"""Commands on mailboxes: LIST from the host's list, SELECT, CREATE to RENAME, quotas."""
