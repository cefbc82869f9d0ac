"""RENAME: what it makes of rows and tells of them; and one whose mailboxes lie on several backends, as one act.

The server of the root coordinates (`coordinator`), each other has a part (`part`). Every one of them writes down what it
will do, takes the new names at the master and keeps everybody else out; then the root's writes down that it is so, and
from there on it can only go on. Whoever dies before that has changed nothing, and whoever does not hear the end asks for
it (`keeper`).
"""
