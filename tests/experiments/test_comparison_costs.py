"""What each method is billed: its own folders and those of whatever it goes on from, each once."""

from dataclasses import asdict
from pathlib import Path

import pytest

from freeprm.experiments.comparison.settings import Comparison, Folders, Generator, Labels, Method
from freeprm.experiments.comparison.tables import cost_tables, method_costs, total_cost
from freeprm.io.rows import write_json
from freeprm.types import Charge, Cost

COMPARISON = Comparison(
    model="m",
    against="ce",
    generators={"g": Generator(model="g")},
    labels={"relative": Labels(labeler="autopsv", model_of="osv")},
    methods={
        "untrained": Method(reward="reference-only"),
        "ce": Method(train={}),
        "alone": Method(of="ce", reward="without-reference"),
        "osv": Method(train={}),
        "autopsv": Method(start="osv", labels="relative", train={}),
        "released": Method(scorer="math_shepherd", model="there"),
    },
)
SCORED = {"ce": "ce", "alone": "ce", "osv": "osv", "autopsv": "autopsv", "untrained": None, "released": None}
"""Whose model each method's scores are by."""


def write(
    folder: Path, stage: str, charge: Charge, *, inputs: list[Path], models: list[Path], counts: dict[str, int]
) -> None:
    folder.mkdir(parents=True)
    manifest = {
        "stage": stage, "status": "complete", "settings": {}, "inputs": {str(path): "hash" for path in inputs},
        "models": {str(index): str(path) for index, path in enumerate(models)}, "counts": counts,
        "cost": asdict(Cost(charges=(charge,), seconds=2.0)),
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)


def charge(what: str, parameters: int, attention: int = 0) -> Charge:
    return Charge(what=what, tokens=3, parameter_flops=parameters, attention_flops=attention)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Manifests of a finished comparison; each power of ten shows how often it was counted."""
    folders = Folders(tmp_path)
    train, test, labels = folders.sampled("train"), folders.sampled("test-g"), folders.labels("relative")
    osv, counts = folders.model("osv"), {"prompts": 1, "right responses": 1, "wrong responses": 1}
    write(train, "sample", charge("decode", 1), inputs=[], models=[], counts={})
    write(test, "sample", charge("decode", 10**9), inputs=[], models=[], counts={})
    write(labels, "label", charge("scorer forward", 10), inputs=[train], models=[osv], counts={})
    trained = charge("training", 100, attention=7_000_000)
    write(folders.model("ce"), "train", trained, inputs=[train], models=[], counts=counts)
    write(osv, "train", charge("training", 1_000), inputs=[train], models=[], counts=counts)
    last = charge("reference forward", 10_000)
    write(folders.model("autopsv"), "train", last, inputs=[labels], models=[osv], counts=counts)
    for name, source in SCORED.items():
        models = [folders.model(source)] if source else []
        scored = charge("policy forward", 30, attention=20)
        write(folders.scores(name, "test-g"), "score", scored, inputs=[test], models=models, counts={"scored": 5})
    return folders


def test_a_chain_is_billed_for_all_of_its_parts_once_and_not_for_the_test(folders: Folders):
    bills = method_costs(COMPARISON, folders)
    assert {name: bill.all_in for name, bill in bills.items()} == {
        "untrained": 0,
        "ce": 7_000_101,
        "alone": 7_000_101,  # another reading of the same model
        "osv": 1_001,
        "autopsv": 11_011,  # rollouts, the verifier, its labels, training on them
        "released": None,
    }
    assert bills["autopsv"].labels == 10
    assert bills["autopsv"].seconds == 8.0  # four folders
    assert bills["autopsv"].trained_tokens == 3
    assert bills["autopsv"].drawn_tokens == 3
    assert bills["ce"].labels is None
    assert bills["ce"].scoring_flops == 10.0  # 50 of 5 responses
    assert bills["ce"].scoring_seconds == 0.4


def test_as_published_neither_rollouts_nor_reference_nor_attention_are_charged(folders: Folders):
    bills = method_costs(COMPARISON, folders)
    assert bills["ce"].published == 100
    assert bills["autopsv"].published == 1_010


def test_the_whole_is_every_folder_once(folders: Folders):
    assert total_cost(folders).flops == 10**9 + 7_011_111 + 6 * 50


def test_the_tables_have_ratios_to_the_method_that_others_are_compared_with(folders: Folders):
    rows: dict[str, dict[str, str]] = {}
    for table in cost_tables(COMPARISON, method_costs(COMPARISON, folders)):
        for row in table.rows:
            values = zip(table.header, (cell.value for cell in row), strict=True)
            rows.setdefault(row[0].value, {}).update(values)
    assert rows["autopsv"]["ratio as published"] == "10.10"  # 1,010 / 100
    assert rows["released"]["ratio"] == "–"
    assert rows["ce"]["ms a response"] == "400.00"
