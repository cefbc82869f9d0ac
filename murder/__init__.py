"""murder: a modern Cyrus Murder (the Cyrus IMAP Aggregator) in one file.

The map. Rooms, in the order they may import each other (tests/test_layers.py holds them to it):

    errors     what crosses rooms when something fails: facts, never replies
    model      nouns: names, entries, rights, flags, messages
    wire       grammar: octets <-> nouns, for IMAP, POP3, LMTP and MUPDATE
    mime       a message by octet offsets
    api        all that a plugin sees: hookspecs and the Protocols of stores, auth, placement, referral
    contract   what every plugin of a kind must keep to: `murder plugin check`
    session    state: who may say what, when; sans-IO
    log        the log, and every event it knows        authority  who is a node: the cluster's own CA
    trust      whose certificates count, and which were taken back
    config     murder.toml as dataclasses               hooks      plugins, found and asked in order
    net        sockets: listeners, TLS, connections, upstreams, relay
    login      clients before and at login, and what frontend and backend tell them alike
    mupdate    the mailbox list, its master, replicas and client
    frontend   the proxy role        backend   the server role (they know nothing of each other)
    control    what a running node tells an operator, and does for him
    server     a role in a process; workers supervise processes, slot is the place of one, channel what passes between them
    node       a node as a whole, asked on its own host        stuck      where a loop stands that turns no more
    host       whom a node runs as, and who is told that it is there
    preflight  what would keep a node from running, found before it runs
    operate    what an operator does to a whole murder, over its own protocols
    demo       a whole murder on one host
    cli        the command line
    archive    how the one file starts

A command walks socket -> net.connection -> wire.fragment -> session -> role's table -> handler, and its
answer straight back. Policy (stores, auth backends, placement, referrals) lives in plugins/, outside.
"""

__version__ = "0.1.0"
