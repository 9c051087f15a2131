"""Everything that each stage can be told: one frozen dataclass a stage, and nowhere else.

A field's type, default and help (the line under it) make the stage's signature in Python, the flag of its command,
what `--config FILE` and `--set name=value` take, and what the manifest records. `Flag` says what differs from the
usual: `--field-name VALUE`, or `--field-name` alone where a bool is False.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from os import PathLike
from typing import Annotated, Any, Literal, get_type_hints

from freeprm.errors import ConfigError

File = str | PathLike[str]
OnBad = Literal["raise", "skip"]
TooLong = Literal["error", "exclude", "truncate"]
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """How a command spells a setting, and what the setting is good for."""

    name: str | None = None
    """With its dashes."""
    switch: Any = _NOTHING
    """The flag stands alone, and gives the setting this value."""
    commas: bool = False
    """Several values stand in one, with commas between."""
    exists: bool = False
    """A path that must exist."""
    family: str | None = None
    """Whose members the help lists."""
    open: bool = False
    """The flag has no default of its own: the setting's applies where nothing is given."""
    rest: bool = False
    """Takes what `--set` gives and no field has."""
    hidden: bool = False
    """There is no flag; `--config` and `--set` reach the setting."""
    decides: bool = True
    """Decides the result, and so which run a folder holds."""

    @property
    def is_switch(self) -> bool:
        """The flag stands alone."""
        return self.switch is not _NOTHING


def flag_of(hint: Any) -> Flag:
    """What is said of a field's flag beside its type."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Flag)), Flag())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all commands have."""

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the result, for the manifest."""
        hints = get_type_hints(type(self), include_extras=True)
        return {item.name: getattr(self, item.name) for item in fields(self) if flag_of(hints[item.name]).decides}


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Of what writes a run folder: all stages and experiments."""

    out: Annotated[File | None, Flag(decides=False)] = None
    """Run folder; the same command resumes it. From Python it may be left out: `runs/STAGE-HASH` of all settings."""


@dataclass(frozen=True, kw_only=True)
class Reading(RunSettings):
    """Of stages that read rollouts."""

    columns: Annotated[Mapping[str, str], Flag(name="--map")] = field(default_factory=dict)
    """ours=theirs: the rows' name for one of our columns, or a path into one: output.score, output[].text."""
    on_bad: Annotated[OnBad, Flag(name="--skip-bad", switch="skip")] = "raise"
    """Count broken records instead of stopping at the first."""


@dataclass(frozen=True, kw_only=True)
class Computing(RunSettings):
    """Of training and scoring, whose results may differ in their last bits from run to run on a GPU."""

    deterministic: bool = False
    """Compute with deterministic algorithms alone: the same command on the same machine gives the same bits, or stops
    where there is no such algorithm. Slower on a GPU."""


@dataclass(frozen=True, kw_only=True)
class Working(RunSettings):
    """Of stages whose work can be done elsewhere."""

    executor: Annotated[str, Flag(family="executors", decides=False)] = "local"
    """Where the work is done."""
    executor_options: Annotated[Mapping[str, Any], Flag(name="--executor-option", decides=False)] = field(
        default_factory=dict
    )
    """name=value, a field of the executor, e.g. workers=8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn."""

    temperature: float = 0.8
    """Logits are divided by it; 0 takes the most likely token, and allows one sample a problem."""
    top_p: float = 1.0
    """Tokens are drawn from the smallest set of the most likely ones that holds this share of the probability."""
    max_new_tokens: int = 512
    """Cut a sample here, and mark it truncated."""
    seed: int = 0
    """Of the sampling."""
    stop: tuple[str, ...] = ()
    """A text that ends a response, which is not part of it."""
    logprobs: bool = False
    """Note each token's log-probability under the model itself, at temperature 1: the reference is free later."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"temperature: is {self.temperature}; expected 0 (the most likely token) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: is {self.top_p}; expected a share above 0 and up to 1")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens: is {self.max_new_tokens}; expected 1 or more")
        if "" in self.stop:
            raise ConfigError("stop: holds an empty text, which would end every response at once")


@dataclass(frozen=True, kw_only=True)
class Drawing(RunSettings, SamplingParams):
    """Of both ways to sample."""

    model: str = "solver:base"
    """As the engine takes it: a folder, a hub id, a GGUF file, or solver:base."""
    split: Annotated[str, Flag(decides=False)] = "train"
    """Of a dataset: train, dev or test."""
    n_problems: Annotated[int | None, Flag(decides=False)] = None
    """Problems to take; all if not given."""
    n: int = 8
    """Samples a problem."""
    engine_options: Annotated[Mapping[str, Any], Flag(name="--engine-option", decides=False)] = field(
        default_factory=dict
    )
    """name=value, a field of the engine, e.g. dtype=bfloat16."""
    dataset_options: Annotated[Mapping[str, Any], Flag(name="--dataset-option", decides=False)] = field(
        default_factory=dict
    )
    """name=value, a field of the dataset."""
    problem_seed: Annotated[int, Flag(decides=False)] = 0
    """Of the choice of problems."""

    def __post_init__(self) -> None:
        SamplingParams.__post_init__(self)
        if self.n < 1:
            raise ConfigError(f"n: is {self.n}; expected 1 sample a problem or more")
        if self.temperature == 0 and self.n > 1:
            raise ConfigError(
                f"n: is {self.n} at temperature 0, where all samples of a problem are the same; set n = 1, or a "
                "temperature"
            )

    def params(self) -> SamplingParams:
        """How tokens are drawn, for the engine."""
        return SamplingParams(**{item.name: getattr(self, item.name) for item in fields(SamplingParams)})


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Drawing, Working):
    """Sample responses; the same command goes on where it was interrupted."""

    engine: Annotated[str, Flag(family="engines")] = "hf"
    """What draws the samples."""
    workers: Annotated[int | None, Flag(decides=False)] = None
    """Processes; decided by the device if not given."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(RunSettings):
    """Of stages that choose by a reward model while they work."""

    prm: Annotated[Any, Flag(name="--prm")] = None
    """With --early-stop: what `freeprm train` wrote, or a hub id; from Python also a loaded `ImplicitPRM`."""
    reward: Annotated[str, Flag(open=True)] = "with-reference"
    """With --early-stop: with-reference, without-reference or reference-only, as for `score`."""
    reference: str | None = None
    """With --early-stop: where the reference is, if it moved."""
    batch: Annotated[int, Flag(open=True)] = 1
    """With --early-stop: responses of a problem that go on at a time; decides the work, not what is chosen."""


@dataclass(frozen=True, kw_only=True)
class SampleEarlySettings(Drawing, EarlyStopping):
    """Find the best of n by --prm, and abandon samples that have fallen behind."""

    logprobs: Annotated[Literal[False], Flag(hidden=True)] = False
    """Not noted of samples that are abandoned."""
    splitter: str | None = None
    """With --early-stop: step_markers, lines, blank_lines or sentences; the reward model's own by default."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Drawing):
    """Draw solutions step by step, led by a reward model: beam search, or verifier trees."""

    n: int = 16
    """Beams; a multiple of the width. n / width solutions come out."""
    method: Literal["beam", "dvts"] = "beam"
    """beam keeps the best n / width of all beams; dvts (diverse verifier tree search) the best of each of n / width
    trees."""
    width: int = 4
    """Ways in which a kept beam goes on after each step; 1 is plain sampling."""
    lookahead: int = 0
    """Steps drawn ahead before beams are ranked."""
    aggregator: str = "min"
    """How a beam's step rewards so far become what it is ranked by: min, sum, mean, last, ..."""
    max_steps: int = 40
    """Beams branch after so many steps at most."""
    prm: Annotated[Any, Flag(name="--prm")] = None
    """What `freeprm train` wrote, or a hub id; from Python also a loaded `ImplicitPRM`."""
    reward: str = "with-reference"
    """with-reference, without-reference or reference-only, as for `score`."""
    reference: str | None = None
    """Where the reference is, if it moved."""
    splitter: str | None = None
    """step_markers, lines, blank_lines or sentences; the reward model's own by default."""
    logprobs: Annotated[Literal[False], Flag(hidden=True)] = False
    """Not noted."""


@dataclass(frozen=True, kw_only=True)
class GradeSettings(Reading, Working):
    """Find each response's answer and compare it with the gold answer."""

    regrade: bool = False
    """Find and judge every answer anew: replaces the labels and the `pred` that rows bring."""
    extractors: Annotated[Sequence[str], Flag(commas=True, open=True)] = ("boxed", "marker")
    """How answers are found: boxed, marker, last_number, with commas; regex:PATTERN or package.module:name by itself.
    The first that finds an answer decides."""
    gold: Annotated[File | None, Flag(exists=True)] = None
    """Problems with problem_id and answer, whose answers replace those of the rows."""
    grader: Annotated[str, Flag(family="graders")] = "math"
    """What judges; package.module:name may be a function (pred, gold) -> bool | None | Verdict."""
    grader_options: Annotated[Mapping[str, Any], Flag(name="--grader-option")] = field(default_factory=dict)
    """name=value, a field of the grader, e.g. decimals=2."""
    no_answer: Literal["none", "wrong"] = "wrong"
    """A response without an answer is wrong, in training as in selection, cut off or not, as in the paper's released
    code; or has none: no label and a reason, so that it is not trained on."""
    timeout: float = 5.0
    """Seconds for one answer; then it has no label."""
    memory_mib: Annotated[int, Flag(name="--memory")] = 2048
    """MiB for a worker process; an answer that needs more has no label."""
    workers: Annotated[int | None, Flag(decides=False)] = None
    """Processes; one a core here, one for each worker of another executor, if not given."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings(Reading):
    """Label every step, by completions of its prefix or by a verifier; the same command goes on where it stopped."""

    labeler: Annotated[str, Flag(family="labelers")] = "monte_carlo"
    """What gives the labels."""
    options: Annotated[Mapping[str, Any], Flag(rest=True, hidden=True)] = field(default_factory=dict)
    """The labeler's fields: model=solver:base, n=8, threshold=-0.5."""
    splitter: str | None = None
    """auto, step_markers, lines, blank_lines or sentences; rows' own steps, or labels for as many as a splitter finds,
    go first."""
    reference: Annotated[File | None, Flag(exists=True)] = None
    """Labels of the same responses whose `step_values` are taken for the truth, e.g. by many more completions; they
    become the column `true_step_values`."""
    seed: int = 0
    """Of the completions, and of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Curating(Reading):
    """Of stages that choose among graded rollouts: what `pair` and `train` do to the data, in this order."""

    mix: Annotated[Mapping[str, float], Flag(open=True)] = field(default_factory=dict)
    """ROLLOUTS=SHARE: mix in problems of other graded rollouts, as that share of all."""
    replace: Annotated[Mapping[str, float], Flag(open=True)] = field(default_factory=dict)
    """ROLLOUTS=SHARE: replace that share of each problem's responses by theirs."""
    deduplicate: float | None = None
    """Leave out responses whose 8-gram overlap with an earlier one to the same prompt is so much, above 0 to 1."""
    instructions: Annotated[float, Flag(open=True)] = 1.0
    """Share of the problems to keep, at random."""
    responses: int | None = None
    """Responses of each problem to keep, at random; all if not given."""
    balance: Annotated[Literal["none", "dataset", "instruction"], Flag(open=True)] = "none"
    """Drop responses of the majority class until classes are even, over the data or inside each problem."""
    pairing: Annotated[Literal["cartesian", "one_to_one"], Flag(open=True)] = "cartesian"
    """Every right response with every wrong one, or each with one counterpart."""
    max_pairs: int | None = None
    """At most so many pairs of one problem."""


@dataclass(frozen=True, kw_only=True)
class PairSettings(Curating):
    """Make preference pairs of graded rollouts, in TRL's format; count what was left out."""

    keep: Literal["pairs", "rollouts"] = "pairs"
    """What to write: pairs, or the rollouts that are left; those in a pair, where it is said how to pair."""
    seed: int = 0
    """Of every draw."""


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(Settings):
    """Of what scores: which model, and how it is loaded."""

    prm: Annotated[Any, Flag(name="--prm", decides=False)] = None
    """Folder that `freeprm train` wrote, or a hub id; from Python also a loaded scorer, or a `ScorerSource`."""
    untrained: Annotated[str | None, Flag(decides=False)] = None
    """Instead of --prm: a plain model as its own scorer."""
    scorer: Annotated[str | None, Flag(family="scorers", decides=False)] = None
    """Instead of --prm: a released model's recipe; with --model."""
    model: Annotated[str | None, Flag(decides=False)] = None
    """Of --scorer: a folder or a hub id."""
    rewards: Annotated[Sequence[str], Flag(name="--reward", commas=True)] = ()
    """Of a log-ratio: with-reference (default with --prm), without-reference, reference-only (default with
    --untrained); several with commas. Both models are run once, whatever is asked for."""
    reference: Annotated[str | None, Flag(decides=False)] = None
    """Where the reference is now, if it moved."""
    beta: Annotated[float | None, Flag(decides=False)] = None
    """Must equal reward.json's, unless overridden."""
    override: Annotated[Sequence[Literal["beta", "reference", "template"]], Flag(decides=False)] = ()
    """beta, reference or template: may differ from what reward.json says."""
    splitter: str | None = None
    """auto, step_markers, lines, blank_lines, sentences or tokens, unless steps are given; the scorer's own by
    default."""
    reasoning: Literal["include", "exclude", "apart"] | None = None
    """A section before the answer (<think>...</think>): part of the response, read but not scored, or cut into steps
    apart from the answer; as the model was trained by default."""
    device: Annotated[str | None, Flag(decides=False)] = None
    """cpu, cuda, cuda:1, ..."""
    reference_device: Annotated[str | None, Flag(decides=False)] = None
    """Of the reference, e.g. cuda:1: both models then work at the same time."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Flag(decides=False)] = "auto"
    """auto is the checkpoint's own."""
    attention: Annotated[str | None, Flag(decides=False)] = None
    """An attention implementation of transformers, e.g. flash_attention_2."""
    trust_remote_code: Annotated[bool, Flag(decides=False)] = False
    """Run code that the model brings."""
    token_budget: Annotated[int | None, Flag(decides=False)] = None
    """Tokens in one batch; by device if not given."""
    max_memory: Annotated[str | None, Flag(decides=False)] = None
    """Instead: what models and a batch may take of a device, e.g. 8GiB; a response that is longer than the tokens for
    which there is room is read alone."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ScorerSettings, Reading, Working, Computing):
    """Score every step of every response; writes one file a reward."""

    stored_reference: Annotated[bool, Flag(name="--no-stored-reference", switch=False, decides=False)] = True
    """Compute the reference also where rollouts bring its log-probabilities from sampling."""
    cache: Annotated[File | None, Flag(decides=False)] = None
    """Of a log-ratio: folder that keeps both models' log-probabilities, so that the same responses are read once by
    each model, however many policies share a reference."""
    policy_url: Annotated[str | None, Flag(decides=False)] = None
    """Of a log-ratio on servers (vLLM or SGLang): the trained model's, e.g. http://localhost:8000/v1. --prm is then
    read for its tokenizer and reward.json."""
    reference_url: Annotated[str | None, Flag(decides=False)] = None
    """The reference's server."""
    server_options: Annotated[Mapping[str, Any], Flag(name="--server-option", decides=False)] = field(
        default_factory=dict
    )
    """name=value: policy_name, reference_name, api, api_key_env, concurrency, max_retries or timeout_seconds."""
    name: str | None = None
    """What rows call the scorer; of a log-ratio, put before the reward."""
    tokens: bool = False
    """Of a log-ratio: write token rewards too."""
    too_long: TooLong = "exclude"
    """Responses that the context does not hold."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings(ScorerSettings):
    """Serve a reward model over HTTP, with a page to look at solutions."""

    prm: Annotated[Any, Flag(hidden=True, decides=False)] = None
    """What is served: see `ScorerSettings`; of the command, its argument."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all of this machine's."""
    port: int = 8000
    """0 takes a free one."""
    api_key: str | None = None
    """What `Authorization: Bearer KEY` must say; by default what FREEPRM_API_KEY says, else no key is needed."""
    runs: Annotated[File | None, Flag(exists=True)] = None
    """Folder of runs, e.g. runs: the page shows those that `freeprm score` wrote."""
    max_batch: int = 64
    """Responses scored together."""
    max_waiting: int = 1024
    """Responses that may wait; beyond that, requests are answered with 429 and a time to try again."""
    max_responses: int = 256
    """Responses in one request."""
    max_body: float = 16.0
    """MiB of one request."""
    timeout: float = 120.0
    """Seconds for one request, and for finishing all of them at the end."""
    too_long: TooLong = "error"
    """Responses that the context does not hold, unless a request says."""


@dataclass(frozen=True, kw_only=True)
class TakingScores(Reading):
    """Of stages that take scores from elsewhere."""

    scores: Annotated[Sequence[File], Flag(exists=True)] = ()
    """Answers of /pooling, /classify or /score on the rollouts, one a line."""
    score_options: Annotated[Mapping[str, Any], Flag(name="--scores-option")] = field(default_factory=dict)
    """name=value: good, values, column, mask, id, splitter or scorer; docs/elsewhere.md."""


@dataclass(frozen=True, kw_only=True)
class ConvertSettings(TakingScores):
    """Read rows of any format, write them in another; docs/data.md shows each."""

    source: Annotated[str | None, Flag(name="--from", family="formats")] = None
    """Format of the inputs; told from the first row if not given."""
    to: Annotated[str, Flag(family="formats")] = "rows"
    """Format to write; rows are our own."""
    read_options: Annotated[Mapping[str, Any], Flag(name="--read-option")] = field(default_factory=dict)
    """name=value, a field of the format of the inputs."""
    write_options: Annotated[Mapping[str, Any], Flag(name="--option")] = field(default_factory=dict)
    """name=value, a field of the format to write."""


@dataclass(frozen=True, kw_only=True)
class SelectSettings(TakingScores):
    """Choose one response or answer a problem, and say how often that is right."""

    n: Annotated[Sequence[int] | None, Flag(name="--n", commas=True)] = None
    """Samples to choose among, e.g. 1,4,16,64; by default powers of two up to what most problems have, and that. A
    problem with fewer is left out, and counted."""
    aggregators: Annotated[Sequence[str], Flag(name="--aggregator", commas=True)] = ("min",)
    """Step scores to a score: min, sum, mean, last, prod, max; several with commas."""
    weighting: Annotated[str, Flag(open=True)] = "by_kind"
    """Score to vote weight: sigmoid, raw, standardised, ...; by the scores' kind if not given."""
    score_kinds: Annotated[str | Mapping[str, str], Flag(name="--score-kind", open=True)] = ""
    """Of scores whose rows do not say it: log_odds, probability or unbounded; or SCORER=KIND. Else scores within 0..1
    are taken for probabilities, all others for unbounded."""
    weight_scale: Annotated[float, Flag(open=True)] = 1.0
    """Scores are multiplied by this before they are weights: sigmoid and exp depend on it as on beta."""
    subsets: Annotated[Literal["resample", "first"], Flag(name="--first", switch="first")] = "resample"
    """The first n samples instead of random subsets."""
    by: Sequence[str] = ()
    """Break the numbers down by this column, e.g. level."""
    answers_by: Annotated[Literal["value", "form"], Flag(open=True)] = "value"
    """Answers vote together by their value, or by their form, as in the game of 24."""
    seed: int = 0
    """Of subsets and bootstrap."""


@dataclass(frozen=True, kw_only=True)
class SelectEarlySettings(Reading, EarlyStopping):
    """For rows without scores: best-of-n by --prm, which scores no more than finds it."""

    n: Annotated[Sequence[int] | None, Flag(name="--n", commas=True)] = None
    """Samples to choose among, the first n of each problem; by default as many as most problems have."""
    aggregator: str = "min"
    """Step scores to a score: min, last or sum."""
    splitter: str | None = None
    """With --early-stop: as for `score`."""
    too_long: Annotated[TooLong, Flag(hidden=True)] = "exclude"
    """Responses that the context does not hold."""
    device: Annotated[str | None, Flag(decides=False)] = None
    """With --early-stop: cpu, cuda, cuda:1, ..."""
    dtype: Annotated[str, Flag(open=True, decides=False)] = "auto"
    """With --early-stop: auto, float32, bfloat16 or float16."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(TakingScores):
    """ProcessBench F1, first-error accuracy, step and response AUC, the latter over all and inside problems."""

    dev: Annotated[Sequence[File], Flag(exists=True)] = ()
    """Scored rows of other problems, to fit each scorer's threshold on."""
    threshold: float | None = None
    """The threshold itself, for all scorers."""
    dev_share: float = 0.3
    """Without either: share of the problems to fit on, drawn at random; the rest is reported on."""
    aggregators: Annotated[Sequence[str], Flag(name="--aggregator", commas=True)] = ("min",)
    """For the response AUC; several with commas."""
    by: Sequence[str] = ()
    """Break the numbers down by this column, e.g. generator."""
    seed: int = 0
    """Of split and bootstrap."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Curating, Computing):
    """Train an implicit process reward model on right-or-wrong labels, or a baseline."""

    model: str
    """Start of the policy, and its reference unless another is named: a folder, hub id, GGUF file or `solver:base`."""
    revision: Annotated[str | None, Flag(hidden=True)] = None
    """Of a hub model."""
    objective: Annotated[str, Flag(family="objectives")] = "ce"
    """What is minimised."""
    objective_options: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """The objective's own settings, e.g. `desirable_weight` of KTO."""
    parameterisation: Literal["log_ratio", "linear", "tokens"] = "log_ratio"
    """What the reward is: beta * log(pi_phi / pi_ref), or a value V that the model says after having read a token: by a
    linear head on the hidden state, or as logit(good) - logit(bad) of two tokens. V is the log-odds of being right."""
    read_at: Literal["steps", "response"] | None = None
    """Where values are trained and read: at the last token of each step, or of the response. By default at the steps
    for objectives on steps, else at the response. Log-ratios have no such places."""
    judgement: tuple[str, str] = ("+", "-")
    """Good and bad, of `tokens`: two texts that are one token each."""
    step_labels: Literal["hard", "soft"] = "hard"
    """For objectives on step labels: the column `step_labels` (true, false), or `step_values` (0 to 1)."""
    beta: float | None = None
    """Reward scale of log-ratios; values have none. By default that of a reward model that is trained on, else what is
    published for the objective, else 0.05, which suits models with hundreds of nats a response: see `reach`."""
    with_reference: Annotated[bool, Flag(name="--no-reference", switch=False)] = True
    """Train r = beta * log pi_phi alone, the reference taken as uniform (Table 4)."""
    reference: str | None = None
    """Another frozen reference than `model`; where `model` is a reward model itself, its own is kept unless one is
    named."""
    reference_revision: Annotated[str | None, Flag(hidden=True)] = None
    """Of a hub reference."""
    group_size: Annotated[int, Flag(hidden=True)] = 8
    """Most responses to one prompt in one group; larger groups are divided, classes spread evenly.

    A group is the least that goes through the model at once, so this bounds the memory of a step: with
    `trainer.per_device_train_batch_size` 1 it holds the logits of so many responses. Pairs across parts are lost.
    """
    max_length: int | None = None
    """Tokens of prompt and response; the model's context if not given."""
    too_long: TooLong = "exclude"
    """What happens to longer ones; always counted."""
    splitter: Annotated[str, Flag(hidden=True)] = "auto"
    """How responses without a column `steps` are cut into steps, by objectives on steps and at scoring."""
    reasoning: Literal["include", "exclude", "apart"] = "include"
    """A section before the answer (<think>...</think>): trained on as part of the response, read but not rewarded, or
    cut into steps apart from the answer. Where it is excluded, a response without an answer behind it is left out."""
    lora: int = 0
    """Rank of LoRA adapters on all linear layers; 0 trains every weight."""
    lora_alpha: Annotated[int | None, Flag(hidden=True)] = None
    """Defaults to twice the rank."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], Flag(hidden=True)] = "float32"
    """Of the trained weights. bfloat16 halves the memory; with `trainer.bf16` float32 weights compute in bfloat16."""
    attention: Annotated[str | None, Flag(hidden=True)] = None
    """An attention implementation of transformers, e.g. flash_attention_2."""
    token_budget: Annotated[int | None, Flag(hidden=True)] = None
    """Tokens in one batch of the reference's pass, padding included; by default 4,096 on the CPU, 16,384 on a GPU."""
    stored_reference: Annotated[bool, Flag(hidden=True)] = True
    """Where rollouts bring the reference's log-probabilities from sampling, take those; see `reference_logprobs`."""
    trust_remote_code: Annotated[bool, Flag(hidden=True)] = False
    """Run code that the model folder brings along."""
    template_date: Annotated[str | None, Flag(hidden=True)] = None
    """The day (YYYY-MM-DD) that a chat template tells which would tell the day of its use; by default 2024-07-26, or
    what it told when the model was trained before."""
    seed: int = 0
    """Of every random choice."""
    trainer: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """Any field of `transformers.TrainingArguments`. A batch counts groups: 8 groups of 8 are 64 responses."""
    dev: Annotated[Sequence[File], Flag(exists=True, decides=False)] = ()
    """Graded rollouts to evaluate on after each epoch, or as `trainer.eval_strategy` says."""
    cache: Annotated[File | None, Flag(decides=False)] = None
    """Where reference log-probabilities are kept; OUT/reference if not given."""

    def __post_init__(self) -> None:
        """Refuse what is out of range, before anything is loaded, and give fields of `trainer` the types they have."""
        if self.beta is not None and not 0 < self.beta < inf:
            raise ConfigError(f"beta: is {self.beta}; expected a number above 0")
        for name, bound in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"{name}: is {value}; expected at least {bound}")
        if self.reference is not None and not self.with_reference:
            raise ConfigError(
                f"reference: is {self.reference!r}, but training is to be without one; give the one or the other"
            )
        if self.parameterisation == "log_ratio" and self.read_at is not None:
            raise ConfigError(
                f"read_at: is {self.read_at!r}, but a log-ratio is of every token; it is for parameterisation linear "
                "or tokens"
            )
        from freeprm.core.steps import TOKENS, splitter

        if self.splitter != TOKENS:
            splitter(self.splitter)  # refuses an unknown name now, and not when the model is done
        if self.parameterisation != "log_ratio":
            object.__setattr__(self, "beta", None)  # which a preset may give for log-ratios
        if self.trainer:
            from transformers import TrainingArguments

            object.__setattr__(self, "trainer", checked_arguments(self.trainer, TrainingArguments, _DECIDED))


_DECIDED = {
    "output_dir": "use --out",
    "seed": "use --seed",
    "full_determinism": "use --deterministic",
    "remove_unused_columns": "batches have no columns",
    "resume_from_checkpoint": "the same command resumes",
}
_LEAST = {
    "group_size": 1, "token_budget": 1, "lora": 0, "lora_alpha": 1, "max_length": 2, "max_pairs": 1, "responses": 1,
    "seed": 0,
}  # fmt: skip


def checked_arguments(trainer: Mapping[str, Any], kind: Any, decided: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a class of arguments, as the types that they have.

    Args:
        trainer: values by name.
        kind: `transformers.TrainingArguments`, or one that inherits from it.
        decided: fields that are ours to decide, with what to do instead.

    Raises:
        ConfigError: no such field, one that is decided, or a value of another type.
    """
    from freeprm.io.config import convert, suggestion

    kinds = get_type_hints(kind)
    known = [item.name for item in fields(kind) if item.init]
    for name in trainer:
        if name not in known:
            raise ConfigError(f"trainer.{name}: no such field of {kind.__name__}.{suggestion(name, known)}")
        if name in decided:
            raise ConfigError(f"trainer.{name}: is decided by freeprm; {decided[name]}")
    return {name: convert(kinds[name], value, name=f"trainer.{name}") for name, value in trainer.items()}


@dataclass(frozen=True, kw_only=True)
class LaunchSettings(Settings):
    """What `freeprm plan` takes besides the settings of the training: GPUs that need not be here, and their work."""

    gpu: str = "h100"
    """Kind of GPU: h100, a100-40, a100-80, h200, b200, l4, l40s, ...; another one by --max-memory and
    --tflops."""
    gpus: int = 8
    """How many, over all machines."""
    max_memory: str | None = None
    """Memory of each that may be taken, e.g. 40GiB; all that the kind has if not given."""
    tflops: float | None = None
    """Peak of each in dense bfloat16, 1e12 FLOPs a second; by kind if not given."""
    sharding: Literal["ddp", "fsdp2", "deepspeed_zero3"] = "ddp"
    """How the model is spread over them: a file of configs/accelerate."""
    offload: bool = False
    """Weights, gradients and optimizer are in the machine's memory; not with ddp."""
    mfu: float = 0.3
    """Share of the peak at which FLOPs are done, recomputed ones included; assumed. Llama 3's pretraining
    had 0.38 to 0.43 (arXiv:2407.21783, table 4)."""
    cached_reference: bool = False
    """The reference's log-probabilities are in --cache already, so that it is not loaded."""
    n_prompts: int = 33_000
    """Without rollouts: prompts, as many as in the paper."""
    n: int = 8
    """Without rollouts: responses of each."""
    prompt_tokens: int = 150
    """Without rollouts: of a prompt, on average."""
    response_tokens: int = 450
    """Without rollouts: of a response, on average."""

    def __post_init__(self) -> None:
        for name in ("gpus", "n_prompts", "n", "prompt_tokens", "response_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected 1 or more")
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"mfu: is {self.mfu}; expected a share above 0 and up to 1")
        if self.tflops is not None and not 0 < self.tflops < inf:
            raise ConfigError(f"tflops: is {self.tflops}; expected a number above 0")
        if self.offload and self.sharding == "ddp":
            raise ConfigError("offload: ddp keeps everything on the GPU; give --sharding fsdp2 or deepspeed_zero3")


@dataclass(frozen=True, kw_only=True)
class RLSettings(Drawing):
    """Train a policy by outcomes and by an implicit process reward model that learns from the same outcomes (PRIME)."""

    temperature: float = 1.0
    """Of what is drawn, in training and evaluation."""
    logprobs: Annotated[Literal[False], Flag(hidden=True)] = False
    """Not noted."""
    engine_options: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """There is no engine: the policy draws while it is trained."""
    steps: int = 100
    """Updates of the policy."""
    prompts: int = 16
    """Problems of one step, each with n samples."""
    learning_rate: float = 1e-6
    """Of the policy; 3e-4 suits the embedded solver."""
    outcome_weight: float = 1.0
    """Of outcomes in the advantage: each less the mean of the problem's other samples."""
    process_weight: float = 1.0
    """Of process rewards in the advantage; 0 trains by outcomes only, without a reward model."""
    gamma: float = 1.0
    """Discount of process rewards."""
    candidates: int = 0
    """Likely tokens at each place that are credited besides the drawn one (DistRL); 0 for none."""
    candidate_weight: float = 0.1
    """Of their loss."""
    accuracies: Annotated[tuple[float, float], Flag(hidden=True)] = (0.0, 1.0)
    """Problems whose share of right samples is outside are not trained on; 0.2 to 0.8 in PRIME."""
    prm: str | None = None
    """Implicit reward model to start from, what `freeprm train` wrote; by default the policy's start is its own."""
    reference: str | None = None
    """Where the reward model's reference is, if it moved."""
    objective: Annotated[str, Flag(family="objectives")] = "ce"
    """By which the reward model learns from outcomes: ce, dpo, nca, ipvrm, ..."""
    objective_options: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """The objective's own settings."""
    beta: float | None = None
    """Scale of the rewards; by default that of --prm, else what is published for the objective, else 0.05."""
    prm_learning_rate: float = 1e-6
    """Of the reward model; 0 leaves it as it is."""
    grader: Annotated[str, Flag(family="graders")] = "math"
    """What judges answers; see `grade`."""
    grader_options: Annotated[Mapping[str, Any], Flag(name="--grader-option")] = field(default_factory=dict)
    """name=value, a field of the grader."""
    extractors: Annotated[Sequence[str], Flag(commas=True, open=True)] = ("boxed", "marker")
    """How answers are found; see `grade`."""
    eval_split: Annotated[str, Flag(hidden=True)] = "dev"
    """Of a dataset, for evaluations."""
    eval_problems: int = 100
    """Problems on which the policy is evaluated, before, during and after training; 0 for none. They are not trained
    on."""
    eval_samples: int = 4
    """Samples of each."""
    eval_every: int = 10
    """Steps between evaluations."""
    save_every: int = 10
    """Steps between checkpoints, from which the same command goes on."""
    lora: int = 0
    """Rank of LoRA adapters of the policy; 0 trains every weight."""
    trainer: Annotated[Mapping[str, Any], Flag(hidden=True)] = field(default_factory=dict)
    """Any field of `trl.GRPOConfig`, e.g. trainer.use_vllm=true, trainer.beta=0.001."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine_options:
            raise ConfigError("engine_options: the policy draws by itself; give fields of the trainer instead")
        for name, least in (("n", 2), ("steps", 1), ("prompts", 1), ("eval_every", 1), ("save_every", 1),
                            ("eval_problems", 0), ("eval_samples", 1), ("lora", 0), ("candidates", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected {least} or more")
        for name in ("outcome_weight", "process_weight", "candidate_weight", "prm_learning_rate", "learning_rate"):
            if not 0 <= getattr(self, name) < inf:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected 0 or more")
        if not self.outcome_weight and not self.process_weight:
            raise ConfigError("outcome_weight, process_weight: are both 0, so nothing would be learned")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma: is {self.gamma}; expected a discount above 0 and up to 1")
        if self.beta is not None and not 0 < self.beta < inf:
            raise ConfigError(f"beta: is {self.beta}; expected a number above 0")
        if not self.process_weight and (self.candidates or self.prm):
            given = "candidates" if self.candidates else "prm"
            raise ConfigError(f"{given}: is for process rewards, but process_weight is 0")
        least_share, most_share = self.accuracies
        if not 0 <= least_share <= most_share <= 1:
            raise ConfigError(f"accuracies: are {self.accuracies}; expected two shares of 0 to 1, in order")


@dataclass(frozen=True, kw_only=True)
class VerifySettings(RunSettings):
    """Check Propositions 3.1 and 3.2 exactly, for a policy of every objective."""

    seed: int = 0
    """Of the random policies, rewards and labels."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings(RunSettings):
    """Sample, grade, train, score, select and evaluate on the embedded world; then write report.html."""

    objectives: Annotated[Sequence[str], Flag(commas=True)] = ("ce",)
    """ce, or several with commas, or all."""
    solver: str = "base"
    """Which shipped solver generates, and is the reference: small, base or large."""
    train_problems: int = 1000
    """Problems to train on."""
    train_samples: Annotated[int, Flag(hidden=True)] = 8
    """Rollouts a training problem, as in the paper."""
    dev_problems: Annotated[int, Flag(hidden=True)] = 100
    """For the thresholds of step-level evaluation; as many rollouts each as in training."""
    test_problems: int = 200
    """Held-out problems."""
    test_samples: int = 64
    """Rollouts a held-out problem."""
    temperature: Annotated[float, Flag(hidden=True)] = 0.8
    """Of the sampling."""
    seed: int = 0
    """Of problems, samples and training: another seed is another experiment."""
