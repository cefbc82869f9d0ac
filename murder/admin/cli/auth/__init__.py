"""`murder auth`: users, passwords, and what the auth plugins say."""
