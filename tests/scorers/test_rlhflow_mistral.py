from freeprm.core.steps import splitter
from freeprm.scorers import rlhflow_deepseek, rlhflow_mistral

RESPONSE = "Step 1: 3 + 4 is 7.\nStep 2: 7 - 2 is 5."


def test_it_is_the_other_model_s_form_with_lines_for_steps():
    ours, other = rlhflow_mistral.PLUGIN, rlhflow_deepseek.PLUGIN
    assert ours.form == other.form
    assert (ours.tokens, ours.head, ours.aggregation) == (other.tokens, other.head, "mean")
    assert len(splitter(ours.splitter)(RESPONSE)) == 2
    assert len(splitter(other.splitter)(RESPONSE)) == 1


def test_its_steps_are_those_that_the_authors_cut_at_their_markers():
    marked = RESPONSE.replace("\n", " ки\n")
    theirs = [part.strip() for part in marked.split("ки\n")]
    ours = [RESPONSE[start:stop].strip() for start, stop in splitter(rlhflow_mistral.PLUGIN.splitter)(RESPONSE)]
    assert ours == theirs
