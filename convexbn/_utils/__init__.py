"""Helpers without mathematics: checks, progress, weights, threads."""
