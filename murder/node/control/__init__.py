"""What a running node tells an operator, and does for them, over sockets in its data folder and `[node] control`.

measured   what a process takes of its host: memory, descriptors, its disk
sockets    of each process: status, sessions, kick, trace, …
node       of the node as a whole: reload, the ports that are its own
"""
