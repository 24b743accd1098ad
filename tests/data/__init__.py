"""Data sets: built, killed, resumed, read."""
