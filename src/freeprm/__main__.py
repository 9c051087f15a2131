"""`python -m freeprm`, for launchers that start modules."""

from freeprm.cli.main import run

run()
