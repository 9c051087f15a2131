"""Benchmarks: what this package's speed and memory are, beside those of others, one file a subject."""
