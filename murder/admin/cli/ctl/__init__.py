"""`murder ctl`: what an operator does to a running murder."""
