"""How good photographs are made bad: single operations, and processes drawn from recipes."""
