"""`python -m freeprm`, for launchers that start modules."""

from freeprm.apps.cli.main import run

run()
