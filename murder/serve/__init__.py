"""What frontend and backend say to clients alike: the dialogues of IMAP, POP3 and LMTP, before login and after."""
