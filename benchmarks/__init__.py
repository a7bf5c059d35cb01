"""Benchmarks: one file a question, peers beside convexbn in one run on one machine. See benchmarks/README.md."""
