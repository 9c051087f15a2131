"""Problems of a named dataset, or from rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freeprm.datasets.base import Dataset, choose
from freeprm.errors import ConfigError, DataError, FreePRMError
from freeprm.io.arrow import is_hub_name
from freeprm.io.plugins import built, names
from freeprm.io.rollouts import problem_row
from freeprm.types import Problem


def load_problems(
    source: str | Path,
    *,
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Problems of a dataset, or of rows with `prompt` and possibly `problem_id` and `answer`.

    Args:
        source: a dataset's name, or rows: a file, a folder, or `hf:owner/name#split`.
        split: of the dataset; rows have none.
        limit: number of problems, chosen by the seed; by default all.
        seed: of the choice.
        options: the dataset's other fields.

    Raises:
        RecordError: a row is broken; names the file and the line.
        DataError: there are fewer problems than `limit`, or none.
        PluginError: neither a path nor a dataset.
    """
    path = Path(source)
    on_hub = is_hub_name(path)
    named = source in names("datasets") or (":" in str(source) and not on_hub)
    if not named and (on_hub or path.exists() or path.suffix in (".json", ".jsonl")):
        dataset: Dataset = built("datasets", "rows", [options or {}, {"path": path}])
    else:
        dataset = built("datasets", str(source), [options or {}])
    return limited(list(dataset.problems(split, limit=limit, seed=seed)), limit, seed)


def readers_of(file: str) -> list[str]:
    """The datasets that can read a file of rows, by its columns, e.g. `question` and `answer` of GSM8K."""
    found = []
    for name in names("datasets", installed=False):
        try:
            dataset: Dataset = built("datasets", name, [{"path": file}])
            next(iter(dataset.problems("train", limit=None, seed=0)))
        except (FreePRMError, StopIteration):
            continue
        found.append(name)
    return found


def limited(problems: Sequence[Problem], limit: int | None, seed: int) -> list[Problem]:
    """`limit` problems chosen by the seed, or all.

    Raises:
        DataError: there are fewer, or none, or one is repeated.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"n_problems: is {limit}; expected 1 or more")
    if len(problems) < (limit or 1):
        raise DataError(f"{limit or 1} problems were asked for, but there are {len(problems)}")
    twice = [problem_id for problem_id, count in Counter(item.problem_id for item in problems).items() if count > 1]
    if twice:
        raise DataError(f"problem_id: {twice[0]!r} is there more than once; expected each problem once")
    return list(choose(problems, limit=limit, seed=seed))


def problems_hash(problems: Sequence[Problem]) -> str:
    """SHA-256 of the problems' rows, in order, for the identity of a run."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(problem_row(problem), sort_keys=True).encode())
    return digest.hexdigest()
