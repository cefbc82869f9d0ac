"""murder: a modern Cyrus Murder (the Cyrus IMAP Aggregator) in one file.

The map. Rooms, in the order they may import each other (tests/test_layers.py holds them to it):

    errors     what crosses rooms when something fails: facts, never replies
    durable    files replaced as a whole, and there after a power cut
    kerberos   tickets: MIT's library, either side of SASL GSSAPI
    model      nouns: names, entries, rights, flags, messages, identities; protocol is all that is listened on
    wire       grammar: octets <-> nouns, for IMAP, POP3, LMTP, ManageSieve and MUPDATE
    mime       a message by octet offsets
    sieve      filters: a script and a message in, a list of actions out
    api        all that a plugin sees: hookspecs and the Protocols of stores, auth, placement, referral;
               api.contract is what every plugin of a kind must keep to: `murder plugin check`
    kit        what a store may be built of: rows in SQLite, UIDs, messages on their way in, copies between mailboxes;
               and what a plugin asks an HTTP server with
    session    state: who may say what, when; sans-IO
    log        the log, and every event it knows
    trail      what can be asked about later: files of lines beside the log
    pki        certificates: the cluster's own CA says who is a node; which count, and which were taken back
    config     murder.toml as dataclasses               hooks      plugins, found and asked in order
    net        sockets: listeners, TLS, connections, upstreams, relay
    auth       who is let in: the gate, what wrong passwords cost, how many connections a user has
    serve      what frontend and backend say to clients alike: the dialogues of IMAP, POP3, LMTP, ManageSieve and
               plugins
    roles      what a node is in a murder (frontend and backend know nothing of each other):
        mupdate    the mailbox list: its database, commits, the list served (serving), a master elsewhere (remote)
        frontend   the proxy        backend    the server of mail        unified    those two on the same ports
    node       a node as it runs: the supervisor, its workers, a role in each (process);
               what they tell an operator, and do for them (control)
    admin      what operators have:
        operate    what is done to a whole murder, over its own protocols
        web        the page in a browser        demo    a whole murder on one host
        manual     the pages that `murder help` prints        cli    the command line
    archive    how the one file starts

A command walks socket -> net.connection -> wire.fragment -> session -> role's table -> handler, and its
answer straight back. Policy (stores, auth backends, placement, referrals) lives in plugins/, outside: a plugin may
import errors, durable, kerberos, model, api and kit, and no other plugin.
"""

__version__ = "0.2.0"
