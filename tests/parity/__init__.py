"""Replays of recorded results of the reference implementation."""
