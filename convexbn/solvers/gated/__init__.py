"""Gated ReLU networks: a group lasso over activation patterns."""
