"""The dataless proxy: finds the mailbox, talks to its backend as the user."""
