"""A whole murder on this host: `plan` what it is made of, `process` one node, `people` users and INBOXes, `run` all."""
