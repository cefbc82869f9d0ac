"""`murder ctl mailbox`, `user`, `move`: mailboxes, and whose they are."""
