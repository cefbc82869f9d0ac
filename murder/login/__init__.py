"""What happens before and at login, the same for frontend and backend: greeting, TLS, SASL, who is let in."""
