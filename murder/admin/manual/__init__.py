"""The manual: a page for each topic, `TOPIC.md`; `murder help TOPIC` prints one."""
