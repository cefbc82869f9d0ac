"""How the one file starts: code that build.py lays at the root of the archive, standard library only.

`entry` becomes the archive's __main__.py, `start` its murder_start.py, `unpack` its murder_unpack.py. They run before
anything of murder or its dependencies can be imported, so they import nothing of ours. The others are
build.py's own.
"""
