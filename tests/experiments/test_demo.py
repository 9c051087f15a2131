"""The whole loop, as small as it can be."""

from pathlib import Path

from freeprm.experiments.demo import REPORT, demo
from freeprm.settings import DemoSettings

SETTINGS = DemoSettings(train_problems=12, train_samples=4, dev_problems=6, test_problems=4, test_samples=4)


def test_the_demo_measures_what_it_trained_and_the_same_command_changes_nothing_any_more(tmp_path: Path):
    made = demo(out=tmp_path, settings=SETTINGS, command="freeprm demo")
    named = {(metric.scorer, metric.selector) for metric in made.metrics if metric.metric == "accuracy"}
    assert {(None, "majority"), ("ce with-reference", "weighted_vote/min")} <= named
    assert "</html>" in (made.folder / REPORT).read_text()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = demo(out=tmp_path, settings=SETTINGS, command="freeprm demo")
    assert (again.metrics, again.cost) == (made.metrics, made.cost)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
