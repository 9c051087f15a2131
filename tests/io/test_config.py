"""Settings in layers: which value wins, and what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from freeprm.errors import ConfigError
from freeprm.io.config import build, convert, read_assignments, read_file, suggestion


@dataclass(frozen=True, kw_only=True)
class Settings:
    model: str
    beta: float = 0.05
    balance: Literal["none", "dataset"] = "none"
    max_length: int | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)


def test_later_layers_win_and_tables_are_merged_at_any_depth():
    layers: list[dict[str, Any]] = [
        {"model": "a", "trainer": {"lr": 1, "kwargs": {"x": 1, "y": 1}}},
        {"beta": 1, "trainer": {"kwargs": {"y": 2}}},
        {"model": "b", "trainer": {"lr": 3}},
    ]
    settings = build(Settings, layers)
    assert settings == Settings(model="b", beta=1.0, trainer={"lr": 3, "kwargs": {"x": 1, "y": 2}})
    assert layers[0]["trainer"] == {"lr": 1, "kwargs": {"x": 1, "y": 1}}


def test_a_value_takes_the_place_of_a_table_and_a_table_of_a_value():
    merged = build(Settings, [{"model": "a"}, {"trainer": {"x": 1}}, {"trainer": {"x": {"y": 2}}}]).trainer
    assert merged == {"x": {"y": 2}}
    with pytest.raises(ConfigError, match="trainer: is 5; input should be a valid"):
        build(Settings, [{"model": "a", "trainer": {"x": 1}}, {"trainer": 5}])


def test_an_unknown_key_is_refused_with_a_suggestion():
    with pytest.raises(
        ConfigError, match=r"bta: no such setting\. Did you mean 'beta'\? There are model, beta, balance"
    ):
        build(Settings, [{"model": "a"}, {"bta": 1}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "model: is not given; give it as an option, in a file, or by --set"),
        ({"model": "a", "beta": "big"}, "beta: is 'big'; input should be a valid number"),
        ({"model": 3}, "model: is 3; input should be a valid string"),
        ({"model": "a", "balance": "datset"}, "balance: is 'datset'; expected one of none, dataset"),
        ({"model": "a", "max_length": 1.5}, "max_length: is 1.5; input should be a valid integer"),
        ({"model": "a", "beta": {"x": 1}}, "beta: is {'x': 1}; input should be a valid number"),
        ({"model": "a", "beta": "x" * 999}, "beta: is 'x{79}\\.\\.\\.; input should"),
    ],
)
def test_a_missing_value_or_one_of_the_wrong_type_is_refused_by_name(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(Settings, [values])


def test_a_value_is_converted_where_that_is_plain():
    assert convert(float, "1e-6", name="x") == 1e-6
    assert convert(bool, "False", name="x") is False
    with pytest.raises(ConfigError, match=r"trainer\.bf16: is 'perhaps'; input should be a valid boolean"):
        convert(bool, "perhaps", name="trainer.bf16")


def test_toml_and_yaml_say_the_same(tmp_path: Path):
    toml, yaml = tmp_path / "a.toml", tmp_path / "a.yaml"
    toml.write_text('beta = 5e-2\nbalance = "none"\n[trainer]\nlearning_rate = 5e-7\nbf16 = true\n', encoding="utf-8")
    yaml.write_text("beta: 5e-2\nbalance: none\ntrainer:\n  learning_rate: 5e-7\n  bf16: true\n", encoding="utf-8")
    expected = {"beta": 0.05, "balance": "none", "trainer": {"learning_rate": 5e-7, "bf16": True}}
    assert read_file(toml) == expected
    assert read_file(yaml) == expected  # YAML 1.1 takes 5e-7 for text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"beta = ", "a.toml: Invalid value"),
        ("a.yaml", b"beta: [", "a.yaml: while parsing"),
        ("a.yaml", b"- beta", "a.yaml: expected settings by name, got list"),
        ("a.yaml", b"", "a.yaml: expected settings by name, got NoneType"),
        ("a.toml", b'model = "\xe9"', "a.toml: .*can't decode"),
        ("a.toml", None, "a.toml: .*No such file"),
    ],
)
def test_a_file_that_is_no_table_of_settings_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_file(tmp_path / name)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1e-6", 1e-6), ("3", 3), ("true", True), ("False", False), ("null", None), ("none", "none"),
        ("cosine", "cosine"),
        ("'1'", "1"), ("[1, 2]", [1, 2]), ("{a = 1}", {"a": 1}), ("", ""),
        ("my.pkg:Name", "my.pkg:Name"), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_an_assignments_value_is_read_as_what_it_looks_like(raw: str, value: Any):
    assert read_assignments([f"x={raw}"]) == {"x": value}


def test_assignments_with_dots_are_tables():
    given = ["beta = 0.1", "trainer.learning_rate=1e-6", "trainer.kwargs.min_lr_rate=0.1", "trainer.bf16=true"]
    assert read_assignments(given) == {
        "beta": 0.1, "trainer": {"learning_rate": 1e-6, "kwargs": {"min_lr_rate": 0.1}, "bf16": True},
    }  # fmt: skip


@pytest.mark.parametrize("assignment", ["beta", "=1", ".x=1", "trainer.=1", "a..b=1"])
def test_an_assignment_without_a_name_or_value_is_refused(assignment: str):
    with pytest.raises(ConfigError, match=r"expected name=value, e\.g\. trainer\.learning_rate=1e-6"):
        read_assignments([assignment])


def test_an_assignment_into_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match=r"--set beta\.x=1: beta was set to 0\.1 before; expected only one of both"):
        read_assignments(["beta=0.1", "beta.x=1"])


def test_a_suggestion_is_made_only_where_something_is_close():
    assert suggestion("lrr", ["lr", "beta"]) == " Did you mean 'lr'?"
    assert suggestion("zzz", ["lr", "beta"]) == ""
    assert suggestion(7, ["lr"]) == ""
