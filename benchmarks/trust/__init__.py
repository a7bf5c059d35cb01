"""Attacks on certificates: adversarial problems, networks that might undercut a bound, and what depends on a machine.

``python -m benchmarks.trust --cases 10000 --seed 0 --out trust.jsonl`` appends one line a case and skips those present;
``python -m benchmarks.trust.summary trust.jsonl`` writes the counts to benchmarks/results/trust.json.
"""
