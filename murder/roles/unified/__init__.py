"""Frontend and backend as one role, on the same ports: what is here is served here, the rest is proxied."""
