"""Tests of the pool of workers."""
