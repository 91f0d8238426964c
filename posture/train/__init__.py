"""The training loop and what it stands on. Knows nothing of Ray: where it runs is a `Context`."""
