"""The protocol of all reward models, and how one is found and loaded.

    scorer = load_scorer("runs/prm")                                            # as its reward.json says
    scorer = load_scorer("peiyi9979/math-shepherd-mistral-7b-prm")              # a released model, by its recipe
    scorer = load_scorer("solver:base", scorer="untrained")                     # any model as its own scorer
    best = scorer.best_of_n("What is 3 + 4?", ["It is 7.", "It is 8."])

A member of the family sets `PLUGIN` to a `Member`, which loads a `Scorer`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from freeprm.core.flops import ModelShape
from freeprm.core.rewards import aggregator as aggregator_named
from freeprm.core.score_kinds import ScoreKind
from freeprm.core.steps import TOKENS, Reasoning, given_steps, steps_in, token_spans
from freeprm.errors import ConfigError, DataError, PluginError
from freeprm.io.plugins import load, names
from freeprm.models.batching import budget_within
from freeprm.models.encoding import Encoded, Fitted, TooLong, answers, check_vocabulary, encode, fit
from freeprm.models.loading import DEFAULT_OPTIONS, Dtype, LoadOptions, load_config, resolve, weights_identity
from freeprm.models.reward_config import OVERRIDES, REWARD_FILE, Override, load_reward_config, stored_config
from freeprm.scorers._usage import Usage
from freeprm.types import Prompt, Ranked, Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of one response: of its steps, or of the whole."""

    steps: tuple[Span, ...] = ()
    """K character spans that tile the response."""
    step_scores: tuple[float, ...] | None = None
    """(K,)"""
    score: float | None = None
    """Of the whole response, if the scorer has no step scores."""
    n_tokens: int
    """Tokens read, the prompt included."""
    reward: float | None = None
    """Of a log-ratio: r(y), the sum over the response."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row: token rewards, if requested."""
    others: Mapping[str, "Scores"] = field(default_factory=dict)
    """Of a log-ratio: its scores under the other requested rewards, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """How responses are scored."""

    rewards: tuple[str, ...] = ()
    """Of a log-ratio: names in `freeprm.core.rewards.REWARDS`, computed from one pass; the scorer's own by default."""
    splitter: str | None = None
    """A name in `freeprm.core.steps.SPLITTERS`, for responses without steps; the scorer's own by default."""
    reasoning: Reasoning | None = None
    """What becomes of reasoning before the answer, see `core.steps.steps_in`; the scorer's own by default."""
    tokens: bool = False
    """Of a log-ratio: return token rewards too."""
    too_long: TooLong = "exclude"
    """What to do with a response longer than the context."""
    token_budget: int | None = None
    """Tokens in one batch; by default decided by the device."""
    max_memory: int | None = None
    """Instead: bytes that models and a batch may take of a device."""

    def batch_tokens(self, models: Sequence[nn.Module], *, packed: bool, reads_logits: bool) -> int | None:
        """Tokens in one batch beside these models, as far as these options say; see `budget_within`."""
        if self.max_memory is None or not models:
            return self.token_budget
        return budget_within(self.max_memory, models, packed=packed, reads_logits=reads_logits)


DEFAULT_SCORING = ScoringOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A scorer's properties that are known before its weights are loaded."""

    name: str
    """Its default name in rows."""
    source: str = ""
    """Its model, as the user named it."""
    splitter: str | None = None
    """Default splitter of responses without steps; None if it scores whole responses."""
    aggregation: str | None = None
    """Default aggregator of step scores, a name in `freeprm.core.rewards.AGGREGATORS`; None as above."""
    kind: ScoreKind | None = None
    """Kind of its scores, for the weights of votes; None if unknown."""
    rewards: tuple[str, ...] = ()
    """Of a log-ratio: the default rewards; empty for any other scorer."""
    reasoning: Reasoning | None = None
    """Its way with reasoning; None of a released model, whose recipe takes responses as they are."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that decide its scores, besides weights and splitter."""
    weights: Mapping[str, Path | None] = field(default_factory=dict)
    """Folders of weights, by role."""

    def identity(self) -> dict[str, Any]:
        """Everything but the splitter that decides its scores, for the settings of a run."""
        settings = dict(self.settings)
        for role, folder in self.weights.items():
            settings |= weights_identity(folder, role=role)
        return settings

    def check(self, options: ScoringOptions) -> None:
        """Raise a ConfigError for the first option that this scorer does not have."""
        if not self.rewards and (options.rewards or options.tokens):
            what = f"rewards {', '.join(options.rewards)}" if options.rewards else "tokens"
            raise ConfigError(f"{what}: is for log-ratios; {self.name} gives one kind of score")
        if options.reasoning is not None and self.reasoning is None:
            raise ConfigError(f"reasoning: {self.name} takes responses as they are; leave it out")
        if options.splitter is not None and self.splitter is None:
            raise ConfigError(f"{self.name}: scores whole responses, not steps; leave the splitter out")


class Scorer(ABC):
    """A loaded scorer. Your own needs `about`, `shape` and `score_rollouts`."""

    about: Description
    consumes: Sequence[str] = ()
    """Columns that are dropped from the row of a scored response."""

    def identity(self) -> dict[str, Any]:
        """See `Description`."""
        return self.about.identity()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Of a scorer that takes rendered prompts; None of one that writes around the question itself."""
        return None

    @abstractmethod
    def shape(self) -> ModelShape:
        """The shape that decides the cost of a token."""

    @abstractmethod
    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        """Score responses, with the steps in their column `steps`, if any.

        Args:
            rollouts: any number, best grouped by prompt.
            options: how.
            usage: counts the tokens of each model.

        Returns:
            Scores by index into `rollouts`, without those left out; and counts of responses left out or cut, by reason.

        Raises:
            ConfigError: see `Description.check`.
            FreePRMError: a response that cannot be scored; names it.
        """

    def rank(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> list[Ranked]:
        """Finished responses to one prompt, the best first, ties in order.

        Args:
            prompt: text or conversation.
            responses: texts.
            aggregator: of step scores, a name in `freeprm.core.rewards.AGGREGATORS`; by default that of the scorer's
                authors.

        Raises:
            ConfigError: no such aggregator.
            DataError: a response is empty, or longer than the context.
        """
        combined = aggregator_named(aggregator or self.about.aggregation or "min")
        scores, _ = self.score_rollouts(rollouts_of(prompt, responses), ScoringOptions(too_long="error"))
        ranked = []
        for index, response in enumerate(responses):
            if index not in scores:
                raise DataError(f"response {index}: cannot be scored, as it is empty; leave it out")
            one = scores[index]
            value = combined(one.step_scores) if one.step_scores is not None else one.score
            assert value is not None
            ranked.append(Ranked(index, response, value))
        return sorted(ranked, key=lambda item: -item.score)

    def best_of_n(self, prompt: Prompt, responses: Sequence[str], *, aggregator: str | None = None) -> Ranked:
        """The best of several responses; see `rank`."""
        if not responses:
            raise DataError("best_of_n: no responses; expected one or more to choose from")
        return self.rank(prompt, responses, aggregator=aggregator)[0]


class Member(Protocol):
    """A member of the family: a kind of scorer. One for released models also has `released` and `architectures`."""

    def describe(self, source: "ScorerSource") -> Description:
        """The description of a model, without loading its weights; a ModelError if it is of another kind."""
        ...

    def load(self, source: "ScorerSource") -> Scorer:
        """The scorer with its weights.

        Raises:
            ConfigError: an option that this kind does not have, such as a reference.
            ModelError: a model of another or unknown kind.
            RewardMismatchError: another beta, reference or chat template than reward.json records.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Inference servers that give a log-ratio's log-probabilities; see `scorers._servers`."""

    policy_url: str
    """Of the trained model, up to /v1."""
    reference_url: str | None = None
    """Of its reference; None where no reward needs it."""
    policy_name: str | None = None
    """The server's name for the model; not needed where it has one model only."""
    reference_name: str | None = None
    """The same of the reference: one server may have both, as a model and its LoRA adapter."""
    api: Literal["auto", "vllm", "sglang"] = "auto"
    """`auto` is what the server says of itself in /v1/models."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the servers' key, if they need one; the key itself is never a setting."""
    concurrency: int = 32
    """Requests in flight at a time, to each server."""
    max_retries: int = 10
    """Of a request, with waits of 1, 2, 4, ... 30 seconds, a little over two minutes in all."""
    timeout_seconds: float = 600.0
    """For one answer."""

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("max_retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected {least} or more")
        if self.timeout_seconds <= 0:
            raise ConfigError(f"timeout_seconds: is {self.timeout_seconds}; expected more than 0")
        if (self.policy_url, self.policy_name) == (self.reference_url, self.reference_name):
            raise ConfigError(
                f"{self.policy_url}: is named as policy and as reference, whose log-ratio would be 0 everywhere. Give "
                "--reference-url, or of one server with both the names: --server-option policy_name=... and "
                "reference_name=..."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSource:
    """Where a scorer is, and how it is loaded, in this process or another."""

    source: str
    """A folder or a hub id."""
    scorer: str | None = None
    """A member of the family, or `package.module:Name`; by default inferred from the source, see `load_scorer`."""
    reference: str | None = None
    """Of a log-ratio, as all of the next: the reference's location, if not the recorded one."""
    load_reference: bool = True
    """False to score without it, at half the cost."""
    beta: float | None = None
    """Must equal the recorded one, unless overridden."""
    override: tuple[Override, ...] = ()
    """What may differ from reward.json: "beta", "reference", "template"."""
    stored_reference: bool = True
    """Use the reference's log-probabilities that rollouts have from sampling."""
    cache: Path | None = None
    """Folder that keeps both models' log-probabilities: whoever scores the same responses again, by another policy of
    the same reference or under another reward, takes them from there. Values are not kept."""
    reference_device: str | None = None
    """Of the reference, if another one; both models then run at the same time."""
    servers: Servers | None = None
    """Servers that run the models; the source is then read for its tokenizer and what it says of itself."""
    options: LoadOptions = DEFAULT_OPTIONS
    """Device, dtype and the like, of all models."""

    def __post_init__(self) -> None:
        if unknown := set(self.override) - set(OVERRIDES):
            raise ConfigError(f"override {min(unknown)!r}: expected one of {', '.join(OVERRIDES)}")

    def load(self) -> Scorer:
        """The scorer with its weights; see `Member.load`. A PluginError if there is no such scorer."""
        return self._member().load(self)

    def describe(self) -> Description:
        """The description without loading the weights; its dtype is the requested one, possibly "auto"."""
        return self._member().describe(self)

    @property
    def folder(self) -> Path:
        """The folder of the model's files."""
        return resolve(self.source)

    def shape(self) -> ModelShape:
        """The shape that decides the cost of a token, with the output head, which some scorers do not use."""
        config = load_config(self.folder, trust_remote_code=self.options.trust_remote_code)
        return ModelShape.of(config.get_text_config())

    def refuse_log_ratio(self, why: str, *, allowed: Sequence[str] = ()) -> None:
        """Raise a ConfigError for the first option of log-ratios that is set."""
        for name in ("reference", "beta", "override", "reference_device", "servers"):
            if getattr(self, name) and name not in allowed:
                raise ConfigError(f"{self.source}: {name}: is for log-ratios; {why}; leave it out")

    def _member(self) -> Member:
        name = self.scorer or _member_of(self.source)
        member = load("scorers", name)
        if not hasattr(member, "describe") or not hasattr(member, "load"):
            raise PluginError(f"scorers: {name!r} is {member!r}, which has no `describe` and `load`; see `Member`")
        checked: Member = member
        return checked


def load_scorer(
    source: str | Path,
    *,
    scorer: str | None = None,
    reference: str | Path | None = None,
    device: str | None = None,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
) -> Scorer:
    """Load any scorer; `ScorerSource` has more options.

    Args:
        source: a folder that `freeprm train` wrote, whose reward.json decides between log-ratios and values; or a
            released model, recognised by its hub id or by a class that only one recipe has.
        scorer: the member of the family, if the source does not decide: a recipe such as "skywork_reward", or
            "untrained", the log-likelihood of any language model.
        reference: of a log-ratio: the reference's location, if it moved.
        device: by default CUDA if available, else the CPU.
        dtype: "auto" is the checkpoint's own.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: the model cannot be loaded, or its kind is unknown.
        PluginError: no such scorer.
        RewardMismatchError: another reference or chat template than reward.json records.
    """
    options = LoadOptions(device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    where = None if reference is None else str(reference)
    return ScorerSource(source=str(source), scorer=scorer, reference=where, options=options).load()


def steps_of(
    covered: Sequence[Span],
    response: str,
    name: str,
    *,
    given: Sequence[str] | None,
    reasoning: Reasoning = "include",
) -> tuple[Sequence[Span], list[Span]]:
    """The steps of a response: character spans and token ranges.

    Args:
        covered: (T,) the characters of each token.
        response: its text; the tokens cover less of it only if it was cut to fit a context.
        name: a splitter, or "tokens".
        given: the steps' texts, used instead of a splitter.
        reasoning: see `core.steps.steps_in`; with `exclude` the tokens are those from the answer on, and what given
            steps have before it is left out.

    Raises:
        SpanError: the given steps are not those of the response.
    """
    if given is None and name == TOKENS:
        return covered, [Span(index, index + 1) for index in range(len(covered))]
    text = response[: covered[-1].stop] if covered else ""
    begin = covered[0].start if covered and reasoning == "exclude" else 0
    spans = steps_in(text, name, reasoning) if given is None else given_steps(response, given)
    spans = [Span(max(begin, a), min(b, len(text))) for a, b in spans if a < len(text) and b > begin]
    return spans, token_spans(covered, spans, text=text, start=begin)


def fit_rollouts(
    rollouts: Sequence[Rollout], tokenizer: PreTrainedTokenizerBase, configs: Mapping[str, PreTrainedConfig], *,
    max_length: int, too_long: TooLong, reasoning: Reasoning = "include",
) -> Fitted[Encoded]:  # fmt: skip
    """Responses encoded for models of one vocabulary, without empty and too long ones.

    Args:
        rollouts: any number.
        tokenizer: of all models.
        configs: of the models, by their names in messages.
        max_length: tokens of a prompt with its response.
        too_long, reasoning: see `ScoringOptions`.

    Returns:
        What is kept, by index into the rollouts, and counts of the others.

    Raises:
        DataError: with "error", names the first that does not fit.
        ModelError: a token is beyond a model's vocabulary.
    """
    present = [index for index, rollout in enumerate(rollouts) if rollout.response]
    encoded = encode(tokenizer, [rollouts[index] for index in present])
    for name, config in configs.items():
        check_vocabulary(encoded, config, model=name)
    counts = Counter({"excluded: empty response": len(rollouts) - len(present)})
    if reasoning == "exclude":
        answered = answers(encoded, [rollouts[index].response for index in present])
        present, encoded = [present[row] for row in answered.kept], answered.encoded
        counts += answered.counts
    found = fit(encoded, max_length=max_length, too_long=too_long)
    return Fitted(kept=[present[row] for row in found.kept], encoded=found.encoded, counts=found.counts + counts)


def rollouts_of(prompt: Prompt, responses: Sequence[str], *, truncated: bool = False) -> list[Rollout]:
    """Responses to one prompt as rollouts."""
    return [
        Rollout(problem_id="prompt", sample_idx=index, prompt=prompt, response=response, truncated=truncated)
        for index, response in enumerate(responses)
    ]


def _member_of(source: str) -> str:
    """The family's member for a folder or a hub id; a ModelError if it is unknown."""
    members = {name: load("scorers", name) for name in names("scorers", installed=False)}
    if not Path(source).expanduser().is_dir():
        for name, member in members.items():
            if source in getattr(member, "released", ()):
                return name
    folder = resolve(source)
    if not (folder / REWARD_FILE).exists():
        for name, member in members.items():
            if set(stored_config(folder).get("architectures") or ()) & set(getattr(member, "architectures", ())):
                return name
    return "valued" if load_reward_config(folder).reference is None else "implicit"
