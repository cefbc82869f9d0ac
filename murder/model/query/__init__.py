"""What a client may ask of mailboxes and messages, as values, and answers that are pure computation."""
