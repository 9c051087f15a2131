"""The `openai` engine: sampling from any server that speaks OpenAI's API."""

from freeprm.engines.openai.engine import OpenAIEngine

PLUGIN = OpenAIEngine
