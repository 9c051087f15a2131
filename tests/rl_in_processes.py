"""A run of `freeprm rl` as a script, for processes that train together; see tests/rl/test_running.py."""

import json
import sys
from pathlib import Path

from accelerate import PartialState

from freeprm.rl.running import rl


def main(file: str) -> None:
    given = json.loads(Path(file).read_text(encoding="utf-8"))
    rl(given.pop("problems"), **given)
    assert PartialState().num_processes == 2


if __name__ == "__main__":
    main(*sys.argv[1:])
