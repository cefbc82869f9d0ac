"""The mailboxes of this backend by their names: made, renamed, removed with the master's leave; who may what in them."""
