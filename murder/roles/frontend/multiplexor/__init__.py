"""A whole session as one pipe to one server: which one (`find`), entered there (`speech`), and passed through (`pipe`)."""
