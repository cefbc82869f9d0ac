"""The list over MUPDATE, the server's side: commands, writes, subscribers (RFC 3656)."""
