"""The data of docs/results/real-model.md: GSM8K solutions by four systems with their labels, divided by problem.

    python scripts/real_model_data.py DATA OUT

DATA holds gsm8k/rollouts_example_model_solutions.jsonl (rows as docs/rows.md has them) and
processbench/{gsm8k,math}.json. OUT gets train, train-more, tune, dev and test .jsonl, which share no problem, and as
many rows of each ProcessBench file as are evaluated. The same files come out every time.
"""

import json
import random
import sys
from pathlib import Path

SPLITS = {"train": 200, "train-more": 200, "tune": 100, "dev": 50, "test": 300}
"""Problems, taken from a shuffled list one split after the other; `train-more` is for who has more time."""
PROCESSBENCH = {"gsm8k": 200, "math": 100}
"""Rows, with and without an error as they fall."""


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    lines = (data / "gsm8k" / "rollouts_example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines()
    by_problem: dict[str, list[str]] = {}
    for line in lines:
        by_problem.setdefault(json.loads(line)["prompt"], []).append(line)
    problems = list(by_problem)
    random.Random(0).shuffle(problems)
    for name, n_problems in SPLITS.items():
        taken, problems = problems[:n_problems], problems[n_problems:]
        rows = [line for problem in taken for line in by_problem[problem]]
        (out / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name, n_rows in PROCESSBENCH.items():
        rows = json.loads((data / "processbench" / f"{name}.json").read_text(encoding="utf-8"))
        taken = random.Random(0).sample(rows, 200)[:n_rows]
        (out / f"processbench-{name}.json").write_text(json.dumps(taken), encoding="utf-8")


if __name__ == "__main__":
    main()
