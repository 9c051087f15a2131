"""Chat templates of the shapes of widely used models, each with a tokenizer that knows their special tokens.

Written for the tests, and short: tools, images and their like are left out. A tokenizer has its special tokens and
single characters, so that ids can be worked out by hand. What the shapes give is what the models' own templates give,
where TRL brings those along; see `test_prompts`.
"""

from dataclasses import dataclass
from string import printable

from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A template, and what becomes of the prompt `2+2?` and the response `4.` under it."""

    template: str
    special: tuple[str, ...]
    bos: str | None = None
    eos: str
    prompt: tuple[str, ...]
    """Special tokens and texts in turn."""
    response: tuple[str, ...] = ("4.",)
    end: str
    begun: tuple[str, ...] | None = None
    """What stands before the assistant's words where they end the prompt; as `prompt` unless given."""
    trl: str | None = None
    """TRL's copy of the model's own template, which gives the same."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A fresh one, its template as it comes; bos and eos are named, the other special tokens only added.

        It puts bos before plain text of its own accord, as Llama's, Gemma's and Mistral's do.
        """
        made = Tokenizer(models.BPE({token: index for index, token in enumerate((*self.special, *printable))}, []))
        made.decoder = decoders.Fuse()
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.special])
        if self.bos:
            made.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", special_tokens=[(self.bos, self.special.index(self.bos))]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token=self.bos, eos_token=self.eos, chat_template=self.template
        )

    def ids(self, *pieces: str) -> list[int]:
        """A special token's id, or those of a text's characters."""
        ids: list[int] = []
        for piece in pieces:
            if piece in self.special:
                ids.append(self.special.index(piece))
            else:
                ids += [len(self.special) + printable.index(character) for character in piece]
        return ids


_LLAMA3 = (
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{{- 'Cutting Knowledge Date: December 2023\n' }}"
    "{{- 'Today Date: ' + date_string + '\n\n' }}{{- '<|eot_id|>' }}{% for m in messages %}"
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA3_PROMPT = (
    "<|begin_of_text|>", "<|start_header_id|>", "system", "<|end_header_id|>",
    "\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", "<|eot_id|>",
    "<|start_header_id|>", "user", "<|end_header_id|>", "\n\n2+2?", "<|eot_id|>",
    "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n",
)  # fmt: skip
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHATML_PROMPT = ("<|im_start|>", "user\n2+2?", "<|im_end|>", "\n", "<|im_start|>", "assistant\n")


def _system(text: str) -> str:
    """ChatML with a system turn of its own."""
    first = f"{{% if messages[0]['role'] != 'system' %}}<|im_start|>system\n{text}<|im_end|>\n{{{{ '' }}}}{{% endif %}}"
    return first + _CHATML


_QWEN3_SPECIAL = (*_CHATML_SPECIAL, "<think>", "</think>")
_QWEN3 = (
    "{% for m in messages %}{% set content = m['content'] %}{% set thought = '' %}"
    "{% if m['role'] == 'assistant' and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ content + '<|im_end|>\n' }}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role'])"
    " + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
_GEMMA_SPECIAL = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_GEMMA_PROMPT = ("<bos>", "<start_of_turn>", "user\n2+2?", "<end_of_turn>", "\n", "<start_of_turn>", "model\n")

SHAPES: dict[str, Shape] = {
    "llama 3.1": Shape(
        template="{{- bos_token }}{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
        + _LLAMA3,
        special=_LLAMA3_SPECIAL, bos="<|begin_of_text|>", eos="<|eot_id|>", prompt=_LLAMA3_PROMPT, end="<|eot_id|>",
        trl="llama3_1",
    ),
    "llama 3.2, which asks the clock": Shape(
        template="{{- bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
        '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}{% endif %}'
        "{% endif %}" + _LLAMA3,
        special=_LLAMA3_SPECIAL, bos="<|begin_of_text|>", eos="<|eot_id|>", prompt=_LLAMA3_PROMPT, end="<|eot_id|>",
        trl="llama3_2",
    ),
    "qwen 2.5": Shape(
        template=_system("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
        special=_CHATML_SPECIAL, eos="<|im_end|>", end="<|im_end|>", trl="qwen2_5",
        prompt=(
            "<|im_start|>", "system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
            "<|im_end|>", "\n", *_CHATML_PROMPT,
        ),
    ),
    "qwen 3": Shape(
        template=_QWEN3 + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        special=_QWEN3_SPECIAL, eos="<|im_end|>", prompt=_CHATML_PROMPT, end="<|im_end|>", trl="qwen3",
        response=("<think>", "\nso\n", "</think>", "\n\n4."),
        begun=(*_CHATML_PROMPT, "<think>", "\n\n", "</think>", "\n\n"),
    ),
    "qwq and qwen 3 thinking": Shape(
        template=_QWEN3 + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
        special=_QWEN3_SPECIAL, eos="<|im_end|>", prompt=(*_CHATML_PROMPT, "<think>", "\n"), end="<|im_end|>",
        response=("so\n", "</think>", "\n\n4."), begun=(*_CHATML_PROMPT, "<think>", "\n\n", "</think>", "\n\n"),
    ),
    "deepseek r1 distilled": Shape(
        template="{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
        "{% elif m['role'] == 'assistant' %}"
        "{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}",
        special=(
            "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
        ),
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", end="<｜end▁of▁sentence｜>",
        prompt=("<｜begin▁of▁sentence｜>", "<｜User｜>", "2+2?", "<｜Assistant｜>", "<think>", "\n"),
        response=("so\n", "</think>", "\n\n4."),
        begun=("<｜begin▁of▁sentence｜>", "<｜User｜>", "2+2?", "<｜Assistant｜>"), trl="deepseek_r1_distill",
    ),
    "mistral 0.3": Shape(
        template="{{ bos_token }}" + _NO_SYSTEM + "{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] + '[/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
        "{% endfor %}",
        special=("<s>", "</s>", "[INST]", "[/INST]"), bos="<s>", eos="</s>", end="</s>",
        prompt=("<s>", "[INST]", " 2+2?", "[/INST]"), begun=("<s>", "[INST]", " 2+2?", "[/INST]", " "),
    ),
    "gemma 2": Shape(
        template=_NO_SYSTEM + _GEMMA, special=_GEMMA_SPECIAL, bos="<bos>", eos="<eos>", prompt=_GEMMA_PROMPT,
        end="<end_of_turn>", trl="gemma",
    ),
    "gemma 3": Shape(
        template=_GEMMA, special=_GEMMA_SPECIAL, bos="<bos>", eos="<eos>", prompt=_GEMMA_PROMPT, end="<end_of_turn>",
        trl="gemma3",
    ),
    "phi 3": Shape(
        template="{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        special=("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"), bos="<s>",
        eos="<|endoftext|>", end="<|end|>", prompt=("<|user|>", "\n2+2?", "<|end|>", "\n", "<|assistant|>", "\n"),
        trl="phi3",
    ),
    "phi 4": Shape(
        template="{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"), bos="<|endoftext|>",
        eos="<|endoftext|>", end="<|im_end|>",
        prompt=("<|im_start|>", "user", "<|im_sep|>", "2+2?", "<|im_end|>", "<|im_start|>", "assistant", "<|im_sep|>"),
    ),
    "smollm 2": Shape(
        template=_system("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        special=_CHATML_SPECIAL, bos="<|im_start|>", eos="<|im_end|>", end="<|im_end|>",
        prompt=(
            "<|im_start|>", "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face",
            "<|im_end|>", "\n", *_CHATML_PROMPT,
        ),
    ),
    "zephyr": Shape(
        template="{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}{{ '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        special=("<s>", "</s>"), bos="<s>", eos="</s>", end="</s>",
        prompt=("<|user|>\n2+2?", "</s>", "\n<|assistant|>\n"),
    ),
    "olmo 2 and tulu": Shape(
        template="{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last %}{{ '\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}",
        special=("<|endoftext|>",), bos="<|endoftext|>", eos="<|endoftext|>", end="<|endoftext|>",
        prompt=("<|endoftext|>", "<|user|>\n2+2?\n<|assistant|>\n"),
    ),
    "granite 3, which asks the clock": Shape(
        template="{{ '<|start_of_role|>system<|end_of_role|>Today\\'s Date: ' + strftime_now('%B %d, %Y') + "
        "'.\nYou are Granite.<|end_of_text|>\n' }}{% for m in messages %}"
        "{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
        special=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), bos="<|end_of_text|>",
        eos="<|end_of_text|>", end="<|end_of_text|>",
        prompt=(
            "<|start_of_role|>", "system", "<|end_of_role|>", "Today's Date: July 26, 2024.\nYou are Granite.",
            "<|end_of_text|>", "\n", "<|start_of_role|>", "user", "<|end_of_role|>", "2+2?", "<|end_of_text|>", "\n",
            "<|start_of_role|>", "assistant", "<|end_of_role|>",
        ),
    ),
    "yi": Shape(
        template=_CHATML, special=_CHATML_SPECIAL, eos="<|endoftext|>", prompt=_CHATML_PROMPT, end="<|im_end|>"
    ),
    "gpt-oss, which asks the clock": Shape(
        template="{{ '<|start|>system<|message|>Current date: ' + strftime_now(\"%Y-%m-%d\") + '<|end|>' }}"
        "{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}"
        "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
        special=("<|startoftext|>", "<|return|>", "<|start|>", "<|message|>", "<|end|>", "<|channel|>"),
        bos="<|startoftext|>", eos="<|return|>", end="<|return|>",
        response=("<|channel|>", "final", "<|message|>", "4."),
        prompt=(
            "<|start|>", "system", "<|message|>", "Current date: 2024-07-26", "<|end|>",
            "<|start|>", "user", "<|message|>", "2+2?", "<|end|>", "<|start|>", "assistant",
        ),
        begun=(
            "<|start|>", "system", "<|message|>", "Current date: 2024-07-26", "<|end|>",
            "<|start|>", "user", "<|message|>", "2+2?", "<|end|>",
            "<|start|>", "assistant", "<|channel|>", "final", "<|message|>",
        ),
    ),
}  # fmt: skip
