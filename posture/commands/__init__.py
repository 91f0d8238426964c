"""Each command as a person meets it: what it asks, shows while it runs, and prints at the end."""
