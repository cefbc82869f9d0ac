"""Who is let in: the gate, what wrong passwords cost, how many connections a user has."""
