"""Comparisons from files: what is read, and what is refused before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.settings import Comparison, Generator, Split, load_comparison

SMALL = """
model = "solver:base"
sizes = [2, 4]
test = { n_problems = 5, n = 4 }
[generators.base]
model = "solver:base"
[methods.ce.train]
objective = "ce"
"""


def load(tmp_path: Path, text: str, *assignments: str) -> Comparison:
    file = tmp_path / "comparison.toml"
    file.write_text(text, encoding="utf-8")
    return load_comparison(file, assignments=assignments)


def test_the_packaged_comparison_has_three_generators_and_the_papers_sizes():
    comparison = load_comparison()
    assert list(comparison.generators) == ["small", "base", "large"]
    assert comparison.sizes == (4, 16, 64)
    assert comparison.against == "ce"


def test_tables_become_what_they_describe_and_assignments_rank_above_them(tmp_path: Path):
    comparison = load(tmp_path, SMALL, "test.n_problems=7", "methods.ce.train.balance=dataset")
    assert comparison.test == Split(n_problems=7, n=4)
    assert comparison.generators == {"base": Generator(model="solver:base")}
    assert comparison.methods["ce"].train == {"objective": "ce", "balance": "dataset"}


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("[methods.x]\ntrian = {}", r"methods\.x\.trian: no such setting\. Did you mean 'train'\?"),
        ("[dev]\nn_problem = 3", r"dev\.n_problem: no such setting\. Did you mean 'n_problems'\?"),
        ("[generators.y]\nmodle = 'm'", r"generators\.y\.modle: no such setting\. Did you mean 'model'\?"),
        ("[tuning.dev]\nm = 3", r"tuning\.dev\.m: no such setting"),
        ("[metods.x]", r"metods: no such setting\. Did you mean 'methods'\?"),
        ("[methods.x]\nof = 'cee'", r"methods\.x\.of: there is no 'cee'\. Did you mean 'ce'\?"),
        ("[methods.x]\nof = 'ce'\ntrain = {}", r"methods\.x: train and of are given; expected one of them"),
        ("[methods.x]\nscorer = 'math_shepherd'", r"methods\.x: scorer and model go together"),
        ("[methods.x]\nreward = 'with-reference'", r"methods\.x\.reward: is 'with-reference', but nothing is trained"),
        ("[methods.x]\nlabels = 'mc'\ntrain = {}", r"methods\.x\.labels: there is no 'mc'"),
        ("[methods.x]\naggregator = 'mni'", "mni"),
        ("[methods.'a/b']\ntrain = {}", r"methods\.a/b: names a folder"),
        ("[methods.u]\n[methods.x]\nof = 'u'", r"methods\.x\.of: 'u' trains no model"),
        ("[generators.y]", r"generators\.y: expected either a model or rollouts"),
    ],
)
def test_what_is_no_setting_or_does_not_fit_is_refused(tmp_path: Path, added: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, f"{SMALL}\n{added}")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sizes=[8]", r"sizes: 8 is above test\.n, 4 responses a problem"),
        ("sizes=[0]", r"sizes: is \[0\]"),
        ("against=dpo", r"against: there is no 'dpo'"),
        ("workers=0", r"workers: is 0"),
        ("train.n=many", r"train\.n"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, assignment: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, SMALL, assignment)


CHAIN = """
[labels.made]
labeler = "autopsv"
model_of = "osv"
[methods.last]
start = "osv"
labels = "made"
train = {}
[methods.reading]
of = "last"
[methods.osv]
train = {}
"""


def test_each_method_comes_behind_those_whose_models_it_needs(tmp_path: Path):
    comparison = load(tmp_path, SMALL + CHAIN)
    assert comparison.parents("last") == ["osv"]  # as its start, and as what labels its steps
    assert comparison.parents("reading") == ["last"]
    assert comparison.order() == ["ce", "osv", "last", "reading"]


def test_methods_that_need_each_other_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"methods: last, osv need each other's models"):
        load(tmp_path, SMALL + CHAIN, "methods.osv.start=last")


def test_methods_may_be_added_to_a_run_but_what_they_share_may_not_change(tmp_path: Path):
    before = load(tmp_path, SMALL).shared()
    shared: dict[str, Any] = load(tmp_path, SMALL + CHAIN, "workers=2", "against=ce").shared()
    assert shared == before
    assert load(tmp_path, SMALL, "train.n=4").shared() != before


def test_a_comparison_is_named_by_an_argument_or_by_config(tmp_path):
    from typer.testing import CliRunner

    from freeprm.cli.main import app

    mine = tmp_path / "mine.toml"
    mine.write_text("unheard_of = 1\n")
    for given in ([str(mine)], ["--config", str(mine)]):
        error = CliRunner().invoke(app, ["compare", *given]).exception
        assert isinstance(error, ConfigError)
        assert "unheard_of" in str(error)
    both = CliRunner().invoke(app, ["compare", str(mine), "--config", str(mine)]).exception
    assert "one of the two" in str(both)
