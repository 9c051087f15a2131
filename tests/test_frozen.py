"""What must not move when the code does: every command's flags and defaults, and the rows that a chain writes.

`python tests/test_frozen.py` writes both anew, for a change that is meant to move them; the changelog then says what.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from freeprm.cli import main

FROZEN = Path(__file__).parent / "frozen"
CHAIN = (
    "sample arithmetic --n-problems 6 --n 3 --out rollouts --model solver:base --workers 1 --logprobs",
    "grade rollouts --out graded",
    "train graded --model solver:base --out prm --set trainer.learning_rate=1e-3 "
    "--set trainer.gradient_accumulation_steps=2",
    "score graded --prm prm --out scores --reward with-reference,without-reference --tokens",
    "select scores --out selection --n 1,3",
    "evaluate scores --out evaluation",
)
ROWS = (
    "rollouts/rollouts.jsonl", "graded/rollouts.jsonl", "scores/with-reference.jsonl", "scores/without-reference.jsonl",
    "selection/selections.jsonl", "selection/accuracies.jsonl", "selection/metrics.json",
    "evaluation/predictions.jsonl", "evaluation/metrics.json",
)  # fmt: skip
REL = 2e-3
"""Of a trained model's log-probabilities on two processors: AdamW divides rounding by the root of a small square."""


def flags() -> dict[str, dict[str, Any]]:
    """Command -> its parameters -> what each takes, and its default."""
    commands: Mapping[str, Any] = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]
    return {name: dict(_parameters(command)) for name, command in sorted(commands.items())}


def _parameters(command: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for parameter in command.params:
        spelled = [*parameter.opts, *parameter.secondary_opts]
        if "--help" not in spelled:
            yield "/".join(spelled), _taken(parameter)


def _taken(parameter: Any) -> dict[str, Any]:
    default = parameter.default
    flag = bool(getattr(parameter, "is_flag", False))
    many = parameter.multiple or parameter.nargs == -1
    default = None if default in ((), [], "") else False if flag and default is None else default
    return {
        "default": str(default) if isinstance(default, Path) else default,
        "flag": flag, "many": many, "required": parameter.required,
    }  # fmt: skip


def chain(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the chain's stages write, by file."""
    patch.chdir(folder)
    for command in CHAIN:
        patch.setattr(sys, "argv", ["freeprm", *command.split()])
        with pytest.raises(SystemExit) as ended:
            main.run()
        assert ended.value.code in (0, None), command
    return {name: _read(folder / name) for name in ROWS}


def _read(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def _file(name: str) -> Path:
    return FROZEN / f"{name.replace('/', '-').partition('.')[0]}.json"


def test_every_command_has_the_flags_and_defaults_that_it_had() -> None:
    frozen = json.loads(_file("flags").read_text(encoding="utf-8"))
    found = flags()
    assert {name: frozen.get(name) for name in found} == found
    assert frozen.keys() == found.keys()


def test_a_chain_of_stages_writes_the_rows_that_it_wrote(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = chain(tmp_path, patch)
    for name in ROWS:
        _same(found[name], json.loads(_file(name).read_text(encoding="utf-8")), name)


def _same(found: Any, frozen: Any, where: str) -> None:
    """Equal in everything, the order of keys included; numbers up to what processors differ in."""
    if isinstance(frozen, Mapping):
        assert list(found) == list(frozen), where
        for key in frozen:
            _same(found[key], frozen[key], f"{where}.{key}")
    elif isinstance(frozen, list):
        assert len(found) == len(frozen), where
        for index, (one, other) in enumerate(zip(found, frozen, strict=True)):
            _same(one, other, f"{where}[{index}]")
    elif isinstance(frozen, float):
        assert found == pytest.approx(frozen, rel=REL, abs=REL), where
    else:
        assert (type(found), found) == (type(frozen), frozen), where


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as to_patch:
        written = {"flags": flags(), **chain(Path(made), to_patch)}
    for file_name, content in written.items():
        lines = json.dumps(_rounded(content), ensure_ascii=False).replace('}, "', '},\n"').replace("}, {", "},\n{")
        _file(file_name).write_text(lines + "\n", encoding="utf-8")
