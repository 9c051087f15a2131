"""Samples written piece by piece against the engine that writes them at once."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import MambaConfig, MambaForCausalLM

import tiny
from drawn import same_draw
from freeprm.engines.base import Request, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf.piecewise import Draft, Writer
from freeprm.errors import ModelError
from freeprm.models.backbone import load_backbone
from rounding import near

PARAMS = SamplingParams(temperature=1.0, max_new_tokens=70, seed=3)
REQUESTS = [
    Request(problem_id=str(index), prompt=prompt, sample_idxs=(0, 1, 5))
    for index, prompt in enumerate(("the sum of 3 and 4?", "12", "Step 1: we add 3 and 4, which is 7."))
]


def in_pieces(engine: HFEngine, params: SamplingParams, *, seed: int = 0) -> tuple[Writer, list[Draft]]:
    """All samples, some of which are written on by up to 40 tokens each round."""
    rng = random.Random(seed)
    writer = Writer(engine._backbone, params=params)
    drafts = [draft for wanted in engine._encoded(REQUESTS) for draft in writer.open(wanted)]
    while unfinished := [draft for draft in drafts if draft.stop_reason is None]:
        chosen = rng.sample(unfinished, rng.randint(1, len(unfinished)))
        stops = {id(draft): len(draft.ids) + rng.randint(1, 40) for draft in chosen}
        writer.write(chosen, lambda draft, stops=stops: len(draft.ids) >= stops[id(draft)])
        assert all(len(draft.ids) == stops[id(draft)] or draft.stop_reason for draft in chosen)
    return writer, drafts


@pytest.mark.parametrize(
    ("architecture", "params"),
    [
        *((architecture, PARAMS) for architecture in (*tiny.ARCHITECTURES, "longrope")),
        ("llama", replace(PARAMS, temperature=0.0)),
        ("llama", replace(PARAMS, top_p=0.8)),
    ],
)
def test_pieces_are_the_samples_drawn_at_once(tmp_path: Path, architecture, params):
    engine = HFEngine(model=str(tiny.save(tmp_path, architecture=architecture)))
    whole = {
        (one.problem_id, one.sample_idx): one for one in engine.sample(REQUESTS, params=replace(params, logprobs=True))
    }
    writer, drafts = in_pieces(engine, params)
    for draft in drafts:
        one = whole[draft.wanted.problem_id, draft.sample_idx]
        if same_draw(engine._backbone, draft, one, params):
            assert draft.stop_reason == one.stop_reason
            assert writer.text(draft) == one.text
            assert draft.logprobs == near(one.token_logprobs)


def test_a_stop_string_ends_a_sample_and_no_part_of_it_is_settled(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    plain = next(iter(engine.sample(REQUESTS[:1], params=PARAMS)))
    stop = plain.text[4:7]
    params = replace(PARAMS, stop=(stop,), max_new_tokens=30)
    whole = {(one.problem_id, one.sample_idx): one for one in engine.sample(REQUESTS, params=params)}
    writer = Writer(engine._backbone, params=params)
    for wanted in engine._encoded(REQUESTS):
        for draft in writer.open(wanted):
            settled = []
            while draft.stop_reason is None:
                writer.write([draft], lambda draft: True)
                settled.append(writer.settled_text(draft) if draft.stop_reason is None else "")
            one = whole[draft.wanted.problem_id, draft.sample_idx]
            assert (writer.text(draft), draft.stop_reason) == (one.text, one.stop_reason)
            assert all(one.text.startswith(text) for text in settled)
    assert "stop" in {one.stop_reason for one in whole.values()}


def test_slots_of_closed_samples_are_used_again(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    writer = Writer(engine._backbone, params=PARAMS)
    sizes = []
    for _ in range(3):
        for wanted in engine._encoded(REQUESTS):
            drafts = writer.open(wanted)
            writer.write(drafts, lambda draft: len(draft.ids) >= 20)
            writer.close(drafts)
        sizes.append((len(writer._slots._layers[0][0]), len(writer._slots._free)))
    assert len(set(sizes)) == 1
    assert sizes[0][1] == sizes[0][0] - 1  # all but the padding's


def test_a_prompt_of_one_token_and_a_full_context_are_ends_like_others(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    params = replace(PARAMS, max_new_tokens=1000)
    request = Request(problem_id="p", prompt="", sample_idxs=(0, 1, 2, 3))  # a line break is left of it
    whole = {one.sample_idx: one for one in engine.sample([request], params=params)}
    writer = Writer(engine._backbone, params=params)
    (wanted,) = engine._encoded([request])
    assert len(wanted.ids) == 1
    drafts = writer.open(wanted)
    writer.write(drafts, lambda draft: len(draft.ids) % 50 == 0)
    writer.write([draft for draft in drafts if draft.stop_reason is None], lambda draft: False)
    for draft in drafts:
        if same_draw(engine._backbone, draft, whole[draft.sample_idx], params):
            assert draft.stop_reason == whole[draft.sample_idx].stop_reason
    assert {draft.stop_reason for draft in drafts} <= {"context", "end"}


def test_a_model_without_keys_and_values_is_refused(tmp_path: Path):
    backbone = load_backbone(str(tiny.save(tmp_path)))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match=r"a MambaForCausalLM, .*cannot be written piece by piece"):
        Writer(replace(backbone, model=mamba), params=PARAMS)


def test_beginning_with_nothing_asked_for_draws_nothing(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    writer = Writer(engine._backbone, params=PARAMS)
    drafts = writer.open(engine._encoded(REQUESTS)[0])
    writer.write([], lambda draft: True)
    assert [draft.ids for draft in drafts] == [[], [], []]
