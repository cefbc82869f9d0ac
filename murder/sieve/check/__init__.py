"""Commands checked against the tables of what there is, and made a program: flat instructions with jumps."""
