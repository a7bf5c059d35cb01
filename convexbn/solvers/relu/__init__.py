"""Column generation for ReLU networks: the loop, its steps and its options."""
