"""Captioners and what is done with their words."""
