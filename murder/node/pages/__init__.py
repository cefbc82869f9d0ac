"""What a node answers over HTTP.

http       a connection: requests in, answers out, by h11
metrics    figures for a monitoring system; whether the node lives, and is ready
"""
