"""Bills of methods from run folders, compared under the conventions, and their figures, tables and pages."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from costs import charge, run
from freeprm.core.ledger import ALL_IN, AS_PUBLISHED, DEVELOPMENT, USE, Ledger, Paid, ledger_of
from freeprm.errors import ConfigError
from freeprm.experiments.bills import Billed, best_of_n, bill, ledger, read_methods
from freeprm.experiments.cost_report import (
    CostReport,
    best_of_n_table,
    cost_report,
    development_table,
    flops_text,
    use_table,
)
from freeprm.experiments.paper_costs import published_tables
from freeprm.report.table import Table
from freeprm.types import Cost

P = 1000
SVG = "{http://www.w3.org/2000/svg}"


def method(
    root: Path, name: str, *, sequence_tokens: int, labels: int = 0, accuracy: float | None = None, responses: int = 4
) -> Path:
    """A method's folders, on rollouts that all of them share; its last one."""
    drawn = run(root / "train", "sample", charge("decode", 400, 2 * P * 400, 8), seconds=10.0)
    test = run(
        root / "test", "sample", charge("decode", 800, 2 * P * 800, 16), seconds=20.0, devices=("cpu",),
        counts={"samples": 32, "problems": 8},
    )  # fmt: skip
    given = drawn
    if labels:
        given = run(root / f"{name}-labels", "label", charge("decode", labels, 2 * P * labels), inputs=[drawn])
    prm = run(
        root / f"{name}-prm", "train", charge("training", 100, 6 * P * 100, 60),
        charge("reference forward", 50, 100 * P),
        inputs=[given], sequence_tokens=sequence_tokens,
        counts={"right responses": 3 * responses, "wrong responses": responses, "prompts": 4},
    )  # fmt: skip
    scores = run(
        root / f"{name}-scores", "score", charge("policy forward", 900, 2 * P * 900, seconds=3.0),
        charge("reference forward", 900, 2 * P * 900, seconds=2.0), inputs=[test], models={"policy": str(prm)},
        seconds=6.0, devices=("cpu",),
    )  # fmt: skip
    if accuracy is None:
        return scores
    chosen = run(root / f"{name}-selection", "select", inputs=[scores])
    metrics = [
        {"metric": "accuracy", "selector": "best_of_n/min", "scorer": scorer, "n": n, "value": value, "count": 8,
         "low": value - 0.1, "high": value + 0.1, "seed": 0, "group": None}
        for scorer, n, value in [
            (f"{name} without-reference", 4, 0.99), (f"{name} with-reference", 1, 0.3),
            (f"{name} with-reference", 4, accuracy),
        ]
    ]  # fmt: skip
    (chosen / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return chosen


@pytest.fixture
def methods(tmp_path: Path) -> list[Billed]:
    ce = method(tmp_path, "ce", sequence_tokens=500, accuracy=0.5)
    shepherd = method(tmp_path, "shepherd", sequence_tokens=500, labels=10_000, accuracy=0.4)
    return read_methods([f"ce={ce}", f"shepherd={shepherd}"])


def rows(table: Table) -> dict[str, dict[str, str]]:
    made = [[f"{cell.value} {cell.aside}".strip() for cell in row] for row in table.rows]
    return {name: dict(zip(table.header[1:], cells, strict=True)) for name, *cells in made}


def test_a_bill_has_everything_upstream_once_and_tells_development_from_use(tmp_path):
    made = bill([method(tmp_path, "ce", sequence_tokens=500, accuracy=0.5)])
    development = made.ledger.only(DEVELOPMENT)
    assert {Path(entry.folder).name for entry in development.entries} == {"train", "ce-prm"}
    assert development.total().flops == 2 * P * 400 + 8 + 6 * P * 100 + 60 + 100 * P
    assert made.ledger.only(USE).by("group")["generation"].total().flops == 2 * P * 800 + 16
    assert made.responses == 4
    assert made.notes == ()


def test_a_ledger_is_of_the_folders_that_are_named_and_no_others(tmp_path):
    scores = method(tmp_path, "ce", sequence_tokens=500)
    assert set(ledger([scores]).by("stage")) == {"score"}
    assert ledger([tmp_path]).total().flops == bill([scores]).ledger.total().flops


def test_methods_are_compared_under_both_conventions(methods):
    published = rows(development_table(methods, AS_PUBLISHED, against="ce"))
    # 6 P * 500 for both; 2 P * 10,000 for the labels: (3 + 20) / 3.
    assert published["ce"]["total"] == "3 M"
    assert published["shepherd"]["annotation"] == "20 M"
    assert published["shepherd"]["x ce"] == "7.67"
    all_in = rows(development_table(methods, ALL_IN, against="ce"))
    # 0.8 M rollouts, 0.1 M reference, 0.6 M training.
    assert [all_in["ce"][name] for name in ("generation", "reference", "training")] == ["800,008", "100,000", "600,060"]
    assert all_in["shepherd"]["x ce"] == f"{(20_000_000 + 1_500_068) / 1_500_068:.3g}"


def test_what_is_not_known_reads_so_and_has_no_ratio(tmp_path):
    drawn = run(tmp_path / "train", "sample", charge("decode", 400, None))
    prm = run(
        tmp_path / "prm", "train", charge("training", 100, 6 * P * 100), inputs=[drawn],
        counts={"right responses": 1, "wrong responses": 1, "prompts": 1},
    )  # fmt: skip
    made = read_methods([f"a={prm}"])
    table = rows(development_table(made, ALL_IN, against="a"))["a"]
    assert (table["generation"], table["total"], table["x a"]) == ("unknown", "≥ 600,000", "–")
    assert flops_text(Ledger().total()) == "–"


def test_use_has_a_column_for_each_model(methods):
    table = use_table(methods)
    assert table is not None
    assert rows(table)["ce"]["reward model"] == "1.8 M"
    assert rows(table)["ce"]["scoring in all"] == "3.6 M"
    assert rows(table)["ce"]["seconds of scoring"] == "6.0"


def test_best_of_n_is_timed_by_its_parts(methods):
    measured = best_of_n(methods[0])
    assert measured.seconds == {
        "generation": 20.0, "policy forward": 3.0, "reference forward": 2.0, "rest of scoring": 1.0,
    }  # fmt: skip
    assert measured.n == 4
    assert measured.total == pytest.approx(130)  # 15 + 10 + 5 % beside generation
    table = rows(best_of_n_table([measured]))
    assert table["reference forward"]["ce, N = 4"] == "10.0 % (2.0 s, 1.8 M)"
    assert table["total without the reference, in % of it"]["ce, N = 4"] == "92.3 %"


def test_best_of_n_of_a_method_without_scores_is_refused(tmp_path):
    drawn = run(tmp_path / "train", "sample", charge("decode", 400, 1))
    with pytest.raises(ConfigError, match="no scores among its folders"):
        best_of_n(read_methods([str(drawn)])[0])


def test_accuracy_is_the_methods_own_scorers_at_the_largest_n(methods):
    metric = methods[0].accuracy
    assert metric is not None
    assert (metric.scorer, metric.n, metric.value) == ("ce with-reference", 4, 0.5)


def test_figures_are_pictures_with_a_bar_and_a_point_a_method(methods, tmp_path):
    report = cost_report(methods, [AS_PUBLISHED, ALL_IN])
    assert set(report.figures) == {
        "development-as-published", "accuracy-as-published", "development-all-in", "accuracy-all-in",
    }  # fmt: skip
    report.write(tmp_path / "out", command="freeprm cost")
    bars = ElementTree.parse(tmp_path / "out" / "development-as-published.svg")
    rectangles = [item for item in bars.iter(f"{SVG}rect") if item.find(f"{SVG}title") is not None]
    # The widths are as the parts: training of both, and annotation, 3 : 3 : 20.
    widths = sorted(float(item.get("width")) for item in rectangles)
    assert [width / widths[0] for width in widths] == pytest.approx([1, 1, 20 / 3], rel=0.01)
    points = ElementTree.parse(tmp_path / "out" / "accuracy-all-in.svg")
    tips = [item.text for item in points.iter(f"{SVG}title")]
    assert any(tip and tip.startswith("shepherd, 4 a problem: 40.0 % of 8 problems") for tip in tips)
    page = (tmp_path / "out" / "cost.html").read_text(encoding="utf-8")
    assert "Development FLOPs, as published" in page
    assert "<script" not in page


def test_equal_runs_give_equal_pages(methods, tmp_path):
    for name in ("one", "two"):
        cost_report(methods, [ALL_IN], published=True).write(tmp_path / name, command="freeprm cost")
    assert (tmp_path / "one" / "cost.html").read_bytes() == (tmp_path / "two" / "cost.html").read_bytes()


def test_methods_are_compared_at_as_many_responses_where_there_are_several_scales(tmp_path):
    arguments = [
        f"{name}={method(tmp_path / str(n), name, sequence_tokens=tokens * n, responses=n)}"
        for name, tokens in (("ce", 100), ("dpo", 300))
        for n in (2, 4)
    ]
    made = read_methods(arguments)
    assert [method.bill.responses for method in made] == [2, 4, 2, 4]
    table = development_table(made, AS_PUBLISHED, against="ce")
    assert [dict(zip(table.header, row, strict=True))["x ce"].value for row in table.rows] == ["1", "1", "3", "3"]


def test_points_of_one_label_are_one_line(tmp_path):
    few = method(tmp_path / "few", "ce", sequence_tokens=100, accuracy=0.3)
    many = method(tmp_path / "many", "ce", sequence_tokens=500, accuracy=0.5)
    figure = cost_report(read_methods([f"ce={many}", f"ce={few}"]), [AS_PUBLISHED]).figures["accuracy-as-published"]
    assert figure.count('class="line s0"') == 2  # in the plot and in its legend


def test_data_has_every_entry_and_the_sums_of_these(methods):
    data = json.loads(json.dumps(cost_report(methods, [ALL_IN], measures_use=True, published=True).data()))
    for item in data["methods"]:
        entries = [entry for entry in item["entries"] if entry["purpose"] == DEVELOPMENT]
        flops = sum(entry["parameter_flops"] + entry["attention_flops"] for entry in entries)
        development = item["development"]["all-in"]
        assert development["flops"] == flops == sum(group["flops"] for group in development["groups"].values())
    assert data["methods"][0]["development"]["all-in"]["ratio"] == 1
    assert data["best_of_n"][0]["seconds"]["generation"] == 20


def test_an_older_runs_flops_are_counted_and_noted(tmp_path):
    folder = run(tmp_path / "old", "sample", flops=5.0, generated_tokens=2)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["cost"] = {"generated_tokens": 2, "flops": 5.0, "seconds": 1.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = bill([folder])
    assert made.ledger.total().flops == 5
    assert "before charges were itemised" in made.notes[0]


def test_scores_that_do_not_name_their_model_are_noted(tmp_path):
    scores = run(tmp_path / "scores", "score", charge("policy forward", 1, 2))
    assert "does not say where its reward model is" in bill([scores]).notes[0]


def test_a_comparison_with_no_such_method_is_refused(methods):
    with pytest.raises(ConfigError, match="no method 'dpo'; there are ce, shepherd"):
        cost_report(methods, [ALL_IN], against="dpo")


def test_a_method_without_a_folder_is_refused():
    with pytest.raises(ConfigError, match="label=folder"):
        read_methods(["ce="])


def test_published_figures_say_what_is_not_derivable():
    ratios, implied, *_ = published_tables()
    assert rows(ratios)["Math-Shepherd / DPO, reproduced"] == {"2": "149.3", "4": "49.5", "8": "21.3"}
    assert rows(ratios)["Math-Shepherd / DPO, published"] == {"2": "146.5", "4": "49.9", "8": "21.3"}
    assert all(cells["tokens generated to label one response"] == "61,919" for cells in rows(implied).values())
    assert "does not state token counts" in implied.note


def test_a_report_without_methods_is_the_papers_figures():
    report: CostReport = cost_report([], [ALL_IN], published=True)
    assert [table.title for table in report.tables] == [table.title for table in published_tables()]
    assert report.figures == {}


def test_ledgers_of_methods_that_share_rollouts_have_them_once(methods):
    together = methods[0].bill.ledger + methods[1].bill.ledger
    assert len([entry for entry in together.entries if entry.what == "decode" and entry.stage == "sample"]) == 2
    assert ledger_of([Paid(folder="a", stage="sample", purpose=USE, cost=Cost())]) == Ledger()
