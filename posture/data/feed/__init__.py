"""Feeding of clips and images to the network, and their origins."""
