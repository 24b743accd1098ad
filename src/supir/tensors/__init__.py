"""What large tensors need, whatever is in them: tiles, arrays on disk, and memory that may run out."""
