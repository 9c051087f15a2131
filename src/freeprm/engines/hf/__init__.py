"""The `hf` engine: sampling with transformers, without a server."""

from freeprm.engines.hf.engine import HFEngine

PLUGIN = HFEngine
