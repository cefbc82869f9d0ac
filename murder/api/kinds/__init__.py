"""The kinds of plugins, each a value: `table.KINDS` has them all."""
