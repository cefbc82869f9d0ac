"""What the nodes of a murder say to each other, as values: moves, renames, backups, and what operators ask."""
