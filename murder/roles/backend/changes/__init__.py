"""What changes in mailboxes, and how each session, worker and watcher hears of it."""
