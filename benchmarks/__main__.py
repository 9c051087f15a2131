"""`python -m benchmarks [OPTIONS]`, from a checkout: `freeprm bench`."""

import sys

from freeprm.cli.main import run

sys.argv[1:1] = ["bench"]
run()
