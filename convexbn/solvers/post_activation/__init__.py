"""Solvers of networks that are batch-normalized after the ReLU."""
