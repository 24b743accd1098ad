"""Key map, conversion, loading, and files that must be refused."""
