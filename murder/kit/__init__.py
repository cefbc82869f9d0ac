"""What a store may be built of; `store_spool` and `store_maildir` are, and a site's own may be.

`schema` is the database, `root` one open database with its writer, `rows`, `numbers`, `sizes`, `pages` and `uids` what
stands in it, `mapped` a message's file, `bodies` what a store keeps elsewhere, `expunged` what can be read although it
was removed, `retained` what can be brought back; `format` refuses a newer store, `epoch` tells an older copy; `settings`
are the keys of every such store, `incoming` is a message on its way in, `flags` a change of flags, `mailbox` what a session
works with, `once` marks what is delivered, `transfer` what crosses two mailboxes, `store` what every store of roots has
while it runs, `carry` mailboxes that move to another server, `check` what can be found wrong and mended.

`http` is for plugins of other kinds, that ask a server.
"""
