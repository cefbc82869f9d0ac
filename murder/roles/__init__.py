"""What a node is in a murder: the mailbox list, proxy, server of mail, or the last two at once."""
