"""Commands made from settings: flags, files, --set, and what `freeprm list` prints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from freeprm.cli.builder import INPUTS, Command, Invocation, add, field_helps, options_of
from freeprm.cli.main import app
from freeprm.errors import ConfigError
from freeprm.io.plugins import names
from freeprm.settings import Flag, RunSettings


@dataclass(frozen=True, kw_only=True)
class Shared(RunSettings):
    """Of two kinds."""

    seed: int = 0
    """Of every choice."""


@dataclass(frozen=True, kw_only=True)
class Plain(Shared):
    """Do it.

    Not shown in help.
    """

    n: Annotated[Sequence[int], Flag(commas=True)] = (1,)
    """How many,
    over two lines."""
    how: Literal["well", "badly"] = "well"
    """How it is done."""
    kept: Annotated[bool, Flag(name="--drop", switch=False)] = True
    """Drop them."""
    options: Annotated[Mapping[str, Any], Flag(name="--option")] = field(default_factory=dict)
    """name=value."""
    inner: Annotated[float, Flag(hidden=True)] = 0.5
    """Not a flag."""


@dataclass(frozen=True, kw_only=True)
class Quick(Shared):
    """Do it quickly."""

    speed: float | None = None
    """How quickly."""


@pytest.fixture
def used(tmp_path: Path) -> Any:
    """Use the command, and give what its work was called with."""
    calls: list[Invocation] = []
    made = typer.Typer()
    add(made, Command(
        name="do", settings={"": Plain, "--quick": Quick}, work=calls.append, out="runs/do", inputs=INPUTS,
        apart={"": "goes with --quick", "--quick": "takes time"},
    ))  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("{}\n")

    def use(*arguments: object) -> Any:
        done = CliRunner().invoke(made, [str(tmp_path / "rows.jsonl"), *map(str, arguments)])
        if done.exception is not None:
            raise done.exception
        return calls[-1].settings(calls[-1].kind)

    return use


def test_flags_are_the_fields_and_what_is_not_given_is_their_default(used: Any):
    assert used() == Plain(out="runs/do")
    assert used("--n", "1,4", "--how", "badly", "--drop", "--option", "a.b=2", "--seed", 3) == Plain(
        out="runs/do", n=[1, 4], how="badly", kept=False, options={"a": {"b": 2}}, seed=3
    )


def test_a_file_ranks_below_flags_and_set_above_them(used: Any, tmp_path: Path):
    (tmp_path / "do.toml").write_text('seed = 1\nhow = "badly"\ninner = 0.25\n')
    made = used("--config", tmp_path / "do.toml", "--seed", 2, "--set", "how=well", "--set", "options.x=y")
    assert made == Plain(out="runs/do", seed=2, how="well", inner=0.25, options={"x": "y"})
    with pytest.raises(ConfigError, match=r"sed: no such setting\. Did you mean .seed"):
        used("--set", "sed=1")


def test_a_switch_asks_for_other_settings_and_refuses_the_flags_of_the_first(used: Any):
    assert used("--quick", "--speed", 2, "--seed", 1) == Quick(out="runs/do", speed=2.0, seed=1)
    with pytest.raises(ConfigError, match="--how takes time"):
        used("--quick", "--how", "badly")
    with pytest.raises(ConfigError, match="--speed goes with --quick"):
        used("--speed", 2)


def test_help_is_the_text_under_the_field_wherever_it_is_declared():
    helps = field_helps(Plain)
    assert helps["n"] == "How many, over two lines."
    assert helps["seed"] == "Of every choice."
    assert helps["out"].startswith("Run folder")
    assert [option.field for option in options_of(Plain)][:2] == ["n", "how"]  # its own before those that it shares


def test_every_setting_of_every_command_has_its_help():
    from freeprm.cli.experiments import DEMO, EXPERIMENTS
    from freeprm.cli.stages import STAGES

    kinds = [kind for command in (DEMO, *STAGES, *EXPERIMENTS) for kind in command.settings.values()]
    assert not [(kind.__name__, option.field) for kind in kinds for option in options_of(kind) if not option.help]


@pytest.mark.parametrize(("command", "flag"), [("grade", "--grader"), ("train", "--objective"), ("label", "--labeler")])
def test_help_lists_the_members_of_a_family(command: str, flag: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    family = {"--grader": "graders", "--objective": "objectives", "--labeler": "labelers"}[flag]
    assert ", ".join(names(family, installed=False)) in " ".join(shown.split())
    assert f"freeprm list {family}" in " ".join(shown.split())


def test_list_prints_members_with_a_line_and_their_options():
    found = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    by_name = {(member["family"], member["name"]): member for member in found}
    for family in ("objectives", "datasets", "formats", "engines", "graders", "labelers", "scorers", "executors"):
        assert {name for one, name in by_name if one == family} == {*names(family)}
    assert all(member["summary"] for member in found)
    assert by_name["datasets", "math"]["options"]["path"]["default"] == "required"
    assert by_name["datasets", "gsm8k"]["options"]["path"]["default"] == "hf:openai/gsm8k:main"
    assert by_name["graders", "numeric"]["options"]["relative"] == {
        "default": "1e-06", "help": "Tolerance as a share of the gold answer.",
    }  # fmt: skip
    assert "arithmetic" in CliRunner().invoke(app, ["list", "datasets"]).stdout
    with pytest.raises(ConfigError, match="dataset: no such family; expected one of objectives"):
        CliRunner().invoke(app, ["list", "dataset"], catch_exceptions=False)
