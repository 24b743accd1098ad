"""Tests of the service: a real server, asked as users ask."""
