"""How clips and images reach the network, and where they came from."""
