"""What an operator does to a whole murder, over its own protocols: MUPDATE to the master, IMAP to the backends.

    reach      the master and the backends, as an administrator
    mailboxes  find, create, delete, rename, rights, quotas, annotations
    moves      begin, follow, abort and undo moves; drain a backend; rebalance
    bring      mail from other servers and from Maildirs

The frontends hold no administrator's rights, so they are passed by.
"""
