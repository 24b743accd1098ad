"""Weights of others into ours: key map, conversion, loading, and what is known of the published files."""
