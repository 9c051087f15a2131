"""The laws that tiny random models obey, on a real pretrained one, SmolLM2-135M-Instruct, in float32 and in bfloat16.

Needs FREEPRM_TEST_MODELS, a folder that holds `smollm2-135m`; about a minute on two idle cores.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from freeprm.models.encoding import encode
from freeprm.models.loading import Backbone, Dtype, LoadOptions, load_backbone, template_hash, weights_hash
from freeprm.models.logprobs import n_read, score_tokens
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages.sampling import sample
from freeprm.stages.scoring import score
from freeprm.types import Problem, Rollout
from served import application, served

ASKED = "Tom has 3 apples and buys 4. How many?"
RESPONSES = (
    "Step 1: 3 + 4 = 7.\n\nStep 2: So Tom has 7 apples.",
    "Step 1: 3 + 4 = 7.\n\nThe answer is 8.",  # goes on from the same step
    "12",
)
ROLLOUTS = [
    *(Rollout(problem_id="p", sample_idx=index, prompt=ASKED, response=text) for index, text in enumerate(RESPONSES)),
    Rollout(problem_id="q", sample_idx=0, prompt="Is 7 prime?", response="Yes, 7 is prime.", truncated=True),
]
TOLERANCE: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.4}
"""Nats of one token. Measured were 2e-5 and 0.19: a bfloat16 logit from 16 to 32 has its neighbours 0.125 away, and 30
layers round before it. What is read in a wrong way is off by whole nats."""


class Real(NamedTuple):
    """The model in one precision, and a policy that was made of it by noise in its last layers."""

    model: Backbone
    policy: Backbone
    tolerance: float

    @property
    def prm(self) -> ImplicitPRM:
        return ImplicitPRM.from_pretrained(self.policy.folder, device="cpu", dtype=self.model.dtype)


@pytest.fixture(scope="module")
def policy_folder(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    backbone = load_backbone(str(smollm2), LoadOptions(device="cpu", dtype="bfloat16"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in backbone.model.named_parameters():
            if ".layers.29." in name or ".layers.28." in name:
                noise = torch.randn(weight.shape, generator=generator)
                weight += 0.1 * weight.float().std() * noise if weight.ndim == 2 else 0.05 * noise
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    config = RewardConfig(
        beta=0.05, base=str(smollm2), objective="ce", template_sha256=template_hash(backbone.tokenizer),
        reference=Reference(source=str(smollm2), weights_sha256=weights_hash(smollm2)),
    )  # fmt: skip
    save_reward_config(config, folder)
    return folder


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def real(request: pytest.FixtureRequest, smollm2: Path, policy_folder: Path) -> Real:
    options = LoadOptions(device="cpu", dtype=request.param)
    return Real(
        load_backbone(str(smollm2), options), load_backbone(str(policy_folder), options), TOLERANCE[request.param]
    )


@pytest.fixture(scope="module")
def alone(real: Real) -> list[Tensor]:
    """Each response's log-probabilities as transformers gives them, read by itself."""
    return [by_transformers(real.model, row) for row in ROLLOUTS]


@torch.inference_mode()
def by_transformers(backbone: Backbone, rollout: Rollout) -> Tensor:
    item = encode(backbone.tokenizer, [rollout])[0]
    ids = torch.from_numpy(item.ids).long()
    logps = backbone.model(input_ids=ids[None]).logits[0].float().log_softmax(-1)  # (L, V)
    return logps[:-1].gather(-1, ids[1:, None])[item.n_prompt - 1 :, 0]


def furthest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of a token, in nats."""
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))


def test_packing_and_shared_beginnings_change_nothing(real, alone):
    encoded = encode(real.model.tokenizer, ROLLOUTS)
    assert n_read(real.model.model, encoded) < sum(len(item.ids) for item in encoded)  # they are shared
    assert furthest(score_tokens(real.model.model, encoded), alone) < real.tolerance


def test_the_size_and_order_of_batches_change_nothing(real, alone):
    encoded = encode(real.model.tokenizer, ROLLOUTS)[::-1]
    assert furthest(score_tokens(real.model.model, encoded, token_budget=1)[::-1], alone) < real.tolerance


def test_steps_sum_to_the_response_and_an_untrained_policy_earns_exactly_0(real, alone):
    trained = ImplicitPRM(real.prm.config, policy=real.policy, reference=real.model)
    for one in trained.score(ASKED, RESPONSES):
        assert len(one.steps) == len(one.step_rewards)
        assert sum(one.step_rewards) == pytest.approx(one.reward, abs=1e-9)
        assert sum(one.token_rewards) == pytest.approx(one.reward, abs=1e-9)
        assert one.q_values[-1] == pytest.approx(one.reward, abs=1e-9)
        assert abs(one.reward) > 1e-3  # it is another model
    untrained = ImplicitPRM(trained.config, policy=replace(real.model), reference=real.model)  # reads it twice
    assert all(not any(one.token_rewards) for one in untrained.score(ASKED, RESPONSES))
    likelihood = untrained.score(ASKED, RESPONSES, reward="reference-only")
    for one, logps in zip(likelihood, alone[:3], strict=True):
        assert one.reward == pytest.approx(0.05 * float(logps.sum()), abs=0.05 * real.tolerance * len(logps))


def test_the_score_stage_is_the_python_call(real, tmp_path):
    made = score(
        ROLLOUTS[:3], prm=str(real.policy.folder), dtype=real.model.dtype, device="cpu", out=tmp_path / "scores"
    )
    rows = list(made.rows())
    for row, one in zip(rows, real.prm.score(ASKED, RESPONSES), strict=True):
        assert row["step_scores"] == pytest.approx(one.step_rewards, abs=1e-9)
        assert row["reward"] == pytest.approx(one.reward, abs=1e-9)
        assert row["step_spans"] == [list(span) for span in one.steps]


def test_a_server_gives_the_scores_of_the_python_call(real):
    prm = real.prm
    asked = [{"prompt": ASKED, "responses": list(RESPONSES)}, {"prompt": "Is 7 prime?", "responses": [RESPONSES[2]]}]
    with served(application(prm)) as client, ThreadPoolExecutor(2) as pool:  # at the same time, perhaps in one batch
        answers = list(pool.map(lambda one: client.post("/score", json=one).json()["results"], asked))
    for one, results in zip(asked, answers, strict=True):
        for found, expected in zip(results, prm.score(one["prompt"], one["responses"]), strict=True):
            within = prm.config.beta * real.tolerance * len(expected.token_rewards)
            assert [step["score"] for step in found["steps"]] == pytest.approx(expected.step_rewards, abs=within)
            assert found["reward"] == pytest.approx(expected.reward, abs=within)


def test_what_is_saved_is_what_is_loaded(real, tmp_path):
    real.policy.model.save_pretrained(tmp_path)
    real.policy.tokenizer.save_pretrained(tmp_path)
    again = load_backbone(str(tmp_path), LoadOptions(device="cpu"))
    assert again.dtype == real.policy.dtype
    weights = again.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in real.policy.model.state_dict().items())
    assert torch.equal(by_transformers(again, ROLLOUTS[2]), by_transformers(real.policy, ROLLOUTS[2]))


def test_log_probabilities_noted_at_sampling_are_those_computed_again(real, tmp_path):
    drawn = sample(
        [Problem(problem_id="p", prompt=ASKED, answer="7")], model=str(real.model.folder), n=2, max_new_tokens=8,
        temperature=0.7, logprobs=True, engine_options={"dtype": real.model.dtype, "device": "cpu"}, out=tmp_path / "r",
    )  # fmt: skip
    rollouts = [
        Rollout(problem_id="p", sample_idx=row["sample_idx"], prompt=ASKED, response=row["response"],
                truncated=row["truncated"])
        for row in drawn.rows("rollouts")
    ]  # fmt: skip
    encoded = encode(real.model.tokenizer, rollouts)
    noted = [row["token_logprobs"] for row in drawn.rows("rollouts")]
    ids = [row["token_ids"] for row in drawn.rows("rollouts")]
    same = [at for at, item in enumerate(encoded) if item.ids[item.n_prompt :].tolist() == ids[at]]
    assert same  # text may be read back as other tokens
    again = score_tokens(real.model.model, [encoded[at] for at in same])
    assert furthest([torch.tensor(noted[at]) for at in same], again) < real.tolerance
