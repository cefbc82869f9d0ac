"""Who may say what, when: sans-IO state of each protocol, both sides."""
