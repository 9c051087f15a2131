"""Models that give values, loaded: a classifier of one label, or a language model with two tokens to judge by.

A language model without a classifier's head must not be taken for one that has it: where a head is to be made, it is
made of zeros, and where none is to be made, the model is refused.
"""

import transformers
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from freeprm.errors import ModelError
from freeprm.models.loading import (
    Backbone,
    LoadOptions,
    adapter_base,
    check_adapters,
    is_language_model,
    load_backbone,
    load_config,
    load_tokenizer,
    load_weights,
    resolve,
)
from freeprm.models.value_heads import LinearHead, TokensHead, ValueHead

_SCORE = "score.weight"


def load_linear(source: str, options: LoadOptions, *, fresh: bool) -> tuple[Backbone, ValueHead]:
    """Load a ...ForSequenceClassification of one label.

    Args:
        source: one, a language model, or an adapter that was trained on either.
        options: device, dtype and the like.
        fresh: whether a model without the head gets one of zeros.

    Raises:
        ModelError: another kind of model, or one without the head where none is to be made.
    """
    folder = resolve(source)
    base = adapter_base(folder)
    whole = resolve(base.source, revision=base.revision) if base else folder
    config = load_config(whole, trust_remote_code=options.trust_remote_code)
    has_head = _has_head(config, source=str(whole))
    if not (has_head or fresh or base):
        raise _headless(source, config)
    if base:
        check_adapters(folder)
    model = _classifier(config, options, source=str(whole), lacks_head=not has_head)
    if base:
        model.load_adapter(str(folder))
        if not (has_head or fresh) and type(model.score) is nn.Linear:  # none came with the adapter
            raise _headless(source, config)
    tokenizer = load_tokenizer(folder, trust_remote_code=options.trust_remote_code, template_date=options.template_date)
    return Backbone(model=model.eval(), tokenizer=tokenizer, source=source, folder=folder), LinearHead()


def load_tokens(source: str, options: LoadOptions, *, judgement: tuple[str, str]) -> tuple[Backbone, ValueHead]:
    """Load a language model, and find the tokens that it judges by.

    Raises:
        ModelError: not a language model, or a text of the judgement that is not one token.
    """
    backbone = load_backbone(source, options)
    return backbone, TokensHead(*judgement_tokens(backbone.tokenizer, judgement))


def judgement_tokens(tokenizer: PreTrainedTokenizerBase, judgement: tuple[str, str]) -> tuple[int, int]:
    """The ids of the tokens good and bad.

    Raises:
        ModelError: a text that is not one token, or is unknown, or the same one for both.
    """
    good, bad = (_one_token(tokenizer, text) for text in judgement)
    if good == bad:
        raise ModelError(
            f"{tokenizer.name_or_path}: {judgement[0]!r} and {judgement[1]!r} are the same token, {good}; choose two "
            "texts that differ"
        )
    return good, bad


def _one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        how = "is unknown" if tokenizer.unk_token_id in ids else f"splits into {tokenizer.convert_ids_to_tokens(ids)}"
        raise ModelError(
            f"{tokenizer.name_or_path}: {text!r} {how}, but a value is the difference of the logits of two single "
            "tokens, good and bad; choose other texts with `judgement`"
        )
    return int(ids[0])


def _has_head(config: PreTrainedConfig, *, source: str) -> bool:
    """Raises: ModelError, for a model that is neither a classifier of one label nor a language model."""
    names = config.architectures or []
    if any("ForSequenceClassification" in name for name in names):
        if config.num_labels != 1:
            raise ModelError(
                f"{source}: a {names[0]} of {config.num_labels} labels; a value is one number, so expected one label"
            )
        return True
    if not is_language_model(config):
        raise ModelError(f"{source}: a {names[0]}; expected a ...ForSequenceClassification, or a causal language model")
    return False


def _headless(source: str, config: PreTrainedConfig) -> ModelError:
    name = (config.architectures or ["model of unknown architecture"])[0]
    return ModelError(
        f"{source}: a {name} without the head that values are read by ({_SCORE}); a language model gives no rewards by "
        "itself. Expected a folder that `freeprm train` wrote with parameterisation=linear"
    )


def _classifier(config: PreTrainedConfig, options: LoadOptions, *, source: str, lacks_head: bool) -> PreTrainedModel:
    """With a head of zeros, where the checkpoint lacks it."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not getattr(config, "auto_map", None):
        raise ModelError(
            f"{source}: transformers has no ...ForSequenceClassification of {config.model_type}; use "
            "parameterisation=tokens for this model"
        )
    config.num_labels = 1
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it would warn of the head, which is filled below
    try:
        model = load_weights(
            AutoModelForSequenceClassification, resolve(source), options, config=config,
            may_lack=[_SCORE] if lacks_head else [],
        )  # fmt: skip
    finally:
        transformers.logging.set_verbosity(verbosity)
    head = getattr(model, "score", None)
    if type(head) is not nn.Linear or head.bias is not None or head.out_features != 1:
        raise ModelError(
            f"{source}: {type(model).__name__} has no head {_SCORE} of one output without bias; use "
            "parameterisation=tokens for this model"
        )
    if lacks_head:
        nn.init.zeros_(head.weight)
    return model
