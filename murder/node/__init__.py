"""A node as it runs.

process    its processes: the supervisor, its workers, a role in each
control    what they tell an operator, and do for them
"""
