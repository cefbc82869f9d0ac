"""What every plugin of a kind must keep to, as checks that need nothing but the plugin: `murder plugin check`."""
