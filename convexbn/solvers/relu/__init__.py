"""Column generation for ReLU networks, and what its rounds are made of."""
