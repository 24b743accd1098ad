"""How models are made: one loop, a file for each stage in `stages`, named runs, and where the pictures come from."""
