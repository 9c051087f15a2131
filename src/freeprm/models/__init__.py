"""The only place that touches transformers and peft: models, tokenizers, log-probabilities."""
