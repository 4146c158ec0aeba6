"""Reproduce an MLX performance issue, find the commit behind it, and compare the pull requests about it."""

__version__ = "0.1.0"
