"""Certificates: the cluster's own authority, and whose certificates count."""
