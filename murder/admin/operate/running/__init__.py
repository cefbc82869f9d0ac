"""The murder as it runs: its nodes, their sessions, conflicts, masters, logs and audit trails."""
