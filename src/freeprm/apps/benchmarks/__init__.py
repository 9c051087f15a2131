"""Running benchmarks and showing what they gave."""
