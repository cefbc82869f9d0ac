"""What must agree is compared and put right: the store and our list, our list and the master's."""
