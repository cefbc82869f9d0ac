"""`murder ctl status`, `doctor`, `log` and their kin: the murder as it runs."""
