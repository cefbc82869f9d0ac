"""What a store may be built of; `store_spool` and `store_maildir` are, and a site's own may be.

`schema` is the database, `root` one open database with its writer, `rows`, `numbers`, `told`, `pages` and `uids` what
stands in it, `mapped` a message's file, `bodies` what a store keeps elsewhere, `expunged` what can be read although it
was removed, `epoch` tells an older copy, `incoming` is a message on its way in, `asked` a change of flags, `mailbox` what
a session works with, `transfer` what crosses two mailboxes, `carry` mailboxes that move to another server, `check` what can
be found wrong and mended.
"""
