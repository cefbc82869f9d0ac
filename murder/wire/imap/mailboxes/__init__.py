"""Grammar of the commands on mailboxes: LIST, SELECT, STATUS, ACLs, quotas, metadata and their kin."""
