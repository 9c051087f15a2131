"""Implicit process reward models by name: loaded where they are needed, told apart without loading their weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeprm.core.flops import ModelShape
from freeprm.models.agreement import Override, reference_of
from freeprm.models.loading import DEFAULT_OPTIONS, LoadOptions, load_backbone, load_config, resolve, weights_hash
from freeprm.models.reward_config import load_reward_config
from freeprm.scorers.implicit import ImplicitPRM


@dataclass(frozen=True, slots=True, kw_only=True)
class PRMSource:
    """What it takes to load a reward model, in this process or in another."""

    source: str
    """A folder that `freeprm train` wrote, a hub id; or any model, where it is untrained."""
    trained: bool = True
    """False: a plain model as its own scorer, see `ImplicitPRM.untrained`."""
    reference: str | None = None
    """See `ImplicitPRM.from_pretrained`, as the next six."""
    load_reference: bool = True
    beta: float | None = None
    override: tuple[Override, ...] = ()
    stored_reference: bool = True
    options: LoadOptions = DEFAULT_OPTIONS
    reference_device: str | None = None

    def load(self) -> ImplicitPRM:
        """The model.

        Raises:
            ModelError: see `ImplicitPRM.from_pretrained`.
        """
        if not self.trained:
            beta = 1.0 if self.beta is None else self.beta
            return ImplicitPRM.untrained(load_backbone(self.source, self.options), beta=beta)
        return ImplicitPRM.from_pretrained(
            self.source, reference=self.reference, load_reference=self.load_reference, beta=self.beta,
            override=self.override, stored_reference=self.stored_reference, options=self.options,
            reference_device=self.reference_device,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """As `ImplicitPRM.identity`; the dtype as it is asked for, "auto" where the worker decides.

        Raises:
            ModelError: the model or its reference is not there, or the model gives values and no log-ratio.
        """
        recorded = load_reward_config(self.folder) if self.trained else None
        reference: Path | None = self.folder
        if recorded is not None:
            of = reference_of(recorded, source=self.source)
            where = self.reference or of.source
            revision = None if self.reference else of.revision
            reference = resolve(where, revision=revision) if self.load_reference else None
        beta = self.beta if self.beta is not None else recorded.beta if recorded else 1.0
        return {
            "beta": beta, "dtype": self.options.dtype, "policy_sha256": weights_hash(self.folder),
            "reference_sha256": reference and weights_hash(reference),
        }  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the policy's files are."""
        return resolve(self.source)

    @property
    def splitter(self) -> str:
        """The model's own way of cutting a response into steps."""
        return load_reward_config(self.folder).splitter if self.trained else "auto"

    def shape(self) -> ModelShape:
        """What decides the cost of a token."""
        config = load_config(self.folder, trust_remote_code=self.options.trust_remote_code)
        return ModelShape.of(config.get_text_config())
