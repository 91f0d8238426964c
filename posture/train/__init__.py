"""The training loop and its parts. It does not know Ray: a `Context` describes where it runs."""
