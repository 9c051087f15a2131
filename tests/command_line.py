"""The command line in the tests' own process."""

import io
import json
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import pytest

from freeprm.cli import main


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which is to be one JSON document and nothing else."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def run(*arguments: object) -> Done:
    """What a command ends with, and what it writes to which stream; a terminal of 200 columns."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["freeprm", *map(str, arguments)])
        patch.setattr(sys, "path", sys.path[:])
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        patch.setenv("COLUMNS", "200")
        try:
            main.run()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
