"""murder: a modern Cyrus Murder (the Cyrus IMAP Aggregator) in one file.

The map. Rooms, in the order they may import each other (tests/test_layers.py holds them to it):

    model     nouns: names, entries, rights, flags, messages
    wire      grammar: octets <-> nouns, for IMAP, POP3, LMTP and MUPDATE
    mime      a message by octet offsets
    api       all that a plugin sees: hookspecs and the Protocols of stores, auth, placement, referral
    session   state: who may say what, when; sans-IO
    net       sockets: listeners, TLS, connections, upstreams, relay
    mupdate   the mailbox list, its master, replicas and client
    frontend  the proxy role        backend   the server role (they know nothing of each other)
    server    roles from a configuration; workers supervise processes
    cli       the command line

A command walks socket -> net.connection -> wire.fragment -> session -> role's table -> handler, and its
answer straight back. Policy (stores, auth backends, placement, referrals) lives in plugins/, outside.
"""

__version__ = "0.1.0"
