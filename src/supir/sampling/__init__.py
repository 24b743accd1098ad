"""Sampling: noise schedules, denoisers and their wrappers, solvers, noise. Knows no network: it is handed one."""
