"""Tests of `supir web`: a real server, and its page in a real browser."""
