"""The claims and presets that come with freeprm, and what a comparison can test of them."""

from pathlib import Path

import pytest

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.settings import load_comparison, packaged_comparisons
from freeprm.experiments.reproduction.claims import Claim, ClaimTest, claim_names, load_claims, missing, single_tests
from freeprm.experiments.reproduction.measuring import MEASURES
from freeprm.experiments.reproduction.presets import load_preset, narrowed, preset_names

CLAIMS = load_claims()
COMPARISONS = {name: load_preset(name).comparison for name in preset_names()}
WORLD = COMPARISONS["world"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_claim_can_be_tested_somewhere_and_names_measures_that_there_are(claim: Claim):
    assert any(not missing(claim, comparison) for comparison in COMPARISONS.values())
    measures = {test.measure for test in claim.tests} | {test.second_measure for test in claim.tests} - {None}
    if claim.plot:
        measures |= {claim.plot.measure, claim.plot.x_measure or claim.plot.measure}
    assert measures <= set(MEASURES)
    known = {name for comparison in COMPARISONS.values() for name in comparison.methods}
    assert claim.shown() <= known


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.table], ids=lambda claim: claim.name)
def test_a_table_of_the_paper_has_a_number_for_each_column_and_their_average(claim: Claim):
    assert claim.table is not None
    for method, numbers in claim.table.rows.items():
        assert len(numbers) == len(claim.table.columns), method
        assert sum(numbers[:-1]) / len(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.06), method


def test_the_world_tests_all_but_what_needs_other_models_and_domains():
    assert [claim.name for claim in CLAIMS if missing(claim, WORLD)] == ["t1e", "t5e"]


def test_claims_are_found_by_the_beginning_of_their_names_and_in_the_order_of_the_paper():
    assert [claim.name for claim in load_claims(["F5", "t1c"])] == ["t1c", "f5", "f5b"]
    assert claim_names()[0] == "p31"
    assert claim_names()[-1].startswith("x")
    with pytest.raises(ConfigError, match="--only f9: no such claim"):
        load_claims(["f9"])


def test_a_test_of_several_sides_and_each_generator_is_one_of_each():
    [claim] = load_claims(["t1"])[:1]
    found = [(test.first, test.generators) for test in single_tests(claim, WORLD)]
    assert len(found) == 4 * 3
    assert found[:3] == [("dpo", "small"), ("dpo", "base"), ("dpo", "large")]


def test_only_the_methods_that_claims_name_are_made_and_those_that_they_come_from():
    comparison = narrowed(WORLD, load_claims(["t5d", "s52"]))
    assert set(comparison.methods) == {"dpo", "dpo_steps", "kto", "nca", "ce"}
    assert set(comparison.labels) == {"monte_carlo"}
    assert comparison.policies.methods == ("dpo", "kto", "nca", "ce")
    assert narrowed(WORLD, load_claims(["t5b"])).policies.methods == ()
    with pytest.raises(ConfigError, match="none of those asked for"):
        narrowed(WORLD, load_claims(["t5e"]))


def test_a_preset_says_what_it_lacks():
    claim = Claim(
        name="c", title="t", source="s", paper="p", tests=(
            ClaimTest(measure="best_of_n", first=("ce", "nobody"), second="majority", generators="elsewhere"),
            ClaimTest(measure="own_answers", first="orm", second="reference"),
        ),
    )  # fmt: skip
    assert missing(claim, WORLD) == ["generator elsewhere", "nobody", "answers of orm"]
    assert list(single_tests(claim, WORLD)) == []


def test_the_tests_that_a_preset_can_make_are_made():
    [claim] = load_claims(["t4b"])
    small = COMPARISONS["small"]
    assert len(list(single_tests(claim, small))) == 4
    [votes] = [claim for claim in load_claims(["f6"]) if claim.name == "f6"]
    assert missing(votes, small) == ["kto", "nca"]
    assert {test.first for test in single_tests(votes, small)} == {"dpo", "ce"}


@pytest.mark.parametrize("name", ["world", "paper"])
def test_quick_is_fewer_problems(name: str):
    whole, quick = COMPARISONS[name], load_preset(name, quick=True).comparison
    assert quick.test.n_problems < whole.test.n_problems
    assert set(quick.methods) == set(whole.methods)
    with pytest.raises(ConfigError, match=r"no table \[quick\]"):
        load_preset("small", quick=True)


def test_what_is_set_stands_above_quick_and_unknown_names_are_refused():
    assert load_preset("world", quick=True, assignments=["test.n_problems=7"]).comparison.test.n_problems == 7
    with pytest.raises(ConfigError, match=r"tets: no such setting"):
        load_preset("world", assignments=["tets.n_problems=7"])
    with pytest.raises(ConfigError, match=r"--preset wrld: .*Did you mean 'world'"):
        load_preset("wrld")


def test_a_preset_that_extends_another_changes_single_expectations(tmp_path: Path):
    (tmp_path / "base.toml").write_text(
        'extends = "embedded"\n[quick]\nsizes = [4]\n[expected]\nprompt_tokens = 1\nresponse_tokens = 2\nsteps = 3\n'
        "flops_per_second = 4\n[expected.parameters]\na = 5\n"
    )
    (tmp_path / "mine.toml").write_text(
        'extends = "base.toml"\n[quick]\ntest = { n = 8 }\n[expected]\nsteps = 9\nparameters = { b = 6 }\n'
    )
    preset = load_preset(str(tmp_path / "mine.toml"), quick=True)
    assert preset.expected is not None
    assert (preset.expected.steps, preset.expected.prompt_tokens, preset.expected.parameters) == (
        9,
        1,
        {"a": 5, "b": 6},
    )
    assert (preset.comparison.sizes, preset.comparison.test.n) == ((4,), 8)


def test_a_file_extends_a_packaged_comparison_or_another_file(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('extends = "embedded"\n[methods.mine]\ntrain = { objective = "ce" }\n')
    (tmp_path / "more.toml").write_text('extends = "mine.toml"\nsizes = [2]\n')
    comparison = load_comparison(tmp_path / "more.toml")
    assert comparison.sizes == (2,)
    assert {"mine", "ce", "dpo"} <= set(comparison.methods)
    (tmp_path / "loop.toml").write_text('extends = "loop.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_comparison(tmp_path / "loop.toml")
    with pytest.raises(ConfigError, match=r"embeded: is no file.*Did you mean 'embedded'"):
        load_comparison("embeded")


@pytest.mark.parametrize("name", packaged_comparisons())
def test_the_packaged_comparisons_can_be_read(name: str):
    assert load_comparison(name).methods
