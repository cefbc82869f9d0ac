"""Who may change what in the list, and how changes become commits: proposals, their bounds, the ledger and its engines."""
