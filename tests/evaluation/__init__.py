"""Measures of restored pictures, and the table of them."""
