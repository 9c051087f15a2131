"""The `monte_carlo` labeler: Math-Shepherd's labels, from completions of each step's prefix."""

from freeprm.labelers.monte_carlo.labeler import MonteCarlo

PLUGIN = MonteCarlo
