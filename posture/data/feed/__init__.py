"""How clips and pictures reach the network, and where they came from."""
