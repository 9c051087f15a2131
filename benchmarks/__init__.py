"""How fast this is and how much memory it takes, beside others: `python -m benchmarks`, from a checkout."""
