"""The plugins that murder brings, each named `<kind>_<name>`; README.md here tells how to write one."""
