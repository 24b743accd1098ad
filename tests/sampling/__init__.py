"""Tests of schedules, denoisers, solvers and noise."""
