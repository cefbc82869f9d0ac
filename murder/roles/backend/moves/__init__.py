"""Mailboxes that move to another backend while people use them (XFER).

    journal   what a move is and how far it has come, durable at both ends
    target    where mailboxes go, a backend of ours or a Cyrus, and the way there
    peer      what the source asks a target of ours
    outgoing  the source's side: copy, stop, hand over
    arriving  the target's side
    from_cyrus, cyrus_peer, cyrus_values, staged
              the target's side where the source is a Cyrus: its replication protocol
    loose     what an end that was away has yet to be told, or to be asked
    compare, verify
              both copies, read side by side
    to_cyrus  a Cyrus in a target's place
    mover     all moves of a worker: begin, continue after a crash, abort, let go of what has left

What stands at which point, and who owns the mailbox: `journal.State`.
"""
