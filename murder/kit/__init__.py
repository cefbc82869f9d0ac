"""What a store may be built of; `store_spool` and `store_maildir` are, and a site's own may be.

`schema` is the database, `root` one open database with its writer, `rows` and `uids` what stands in it, `epoch` tells an
older copy, `incoming` is a message on its way in, `asked` a change of flags, `mailbox` what a session works with,
`transfer` what crosses two mailboxes, `carry` mailboxes that move to another server, `check` what can be found wrong and
mended.
"""
