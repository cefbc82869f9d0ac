"""A user's Sieve scripts: where they are kept, whether they are right, and what ManageSieve says of them."""
