"""Prompts as token ids, checked against the model's context before anything is trained."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from agapo.chat import prompt_ids
from agapo.errors import UserError
from agapo.schema import Prompt

Renderer = Callable[[Prompt], tuple[int, ...]]


def make_renderer(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    """Return a function from a prompt to its token ids, which remembers what it has rendered."""
    known: dict[str, tuple[int, ...]] = {}

    def render(prompt: Prompt) -> tuple[int, ...]:
        # By all that is rendered: ids are unique within a source alone, and a renderer serves several.
        key = repr((prompt.messages, prompt.columns.get("tools"), prompt.mode))
        if key not in known:
            known[key] = tuple(prompt_ids(tokenizer, prompt))
        return known[key]

    return render


def check_lengths(
    prompts: Sequence[Prompt],
    render: Renderer,
    config: PreTrainedConfig,
    *,
    max_prompt_tokens: int,
    max_new_tokens: int,
    key: str = "data",
) -> None:
    """Raise UserError when a prompt is longer than the recipe allows, or it and its response than the context.

    `key`: the recipe's section with the limits, for errors.
    """
    longest = max(prompts, key=lambda prompt: len(render(prompt)))
    length = len(render(longest))
    if length > max_prompt_tokens:
        raise UserError(
            f"{key}.max_prompt_tokens: prompt '{longest.id}' has {length} tokens, more than {max_prompt_tokens}; "
            f"raise it, or set {key}.overlong to drop, which leaves such prompts out"
        )
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context and length + max_new_tokens > context:
        raise UserError(
            f"rollout.max_new_tokens: prompt '{longest.id}' ({length} tokens) and {max_new_tokens} new ones exceed "
            f"the model's context of {context}; lower it"
        )
