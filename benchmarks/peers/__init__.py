"""The peers, one file each: they take an instance and return a `benchmarks.harness.Run`."""
