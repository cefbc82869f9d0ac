"""The only room with sockets: listeners, TLS, connections, upstreams, relay."""
