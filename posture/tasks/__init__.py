"""What makes a network a task: its loss, what its outputs mean, and how well it does."""
