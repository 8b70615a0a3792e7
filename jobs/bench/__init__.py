"""What `jobs/benchmark.py` runs: features at the size of a published table, the parts, the reference."""
