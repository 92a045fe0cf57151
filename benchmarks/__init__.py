"""The stress suite: ``python -m benchmarks --help``."""
