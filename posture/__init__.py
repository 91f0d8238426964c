"""Posture: distributed training and search for sports footage, on Ray."""

__version__ = "0.1.0"
