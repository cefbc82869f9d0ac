"""Mail that comes in, from RCPT to the copy in a mailbox: each file hands on to the next one.

`addressee` says where a recipient's mail goes, `arrival` takes the text for all of them, `recipient` says what becomes of it
for one: what plugins say (`filtering`), what scripts say (the room `scripts`), and the `copies` that are kept.
"""
