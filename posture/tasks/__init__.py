"""Tasks: the loss of a network, the meaning of its outputs, and its metrics."""
