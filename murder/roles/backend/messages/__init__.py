"""What is read of a message that the store has, whoever asks: IMAP, POP3, LMTP, scripts, moves."""
