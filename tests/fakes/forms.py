"""Rewards that read prompts and completions in one form each: 1 where prompt and completion hold the column `gold`."""

import json


def own(prompts, completions, gold, **columns):
    """The project's form: the prompt's messages, the response's text."""
    texts = zip(prompts, completions, gold, strict=True)
    return [float(word in prompt[-1]["content"] and word in text) for prompt, text, word in texts]


def own_by_characters(prompts, completions, gold, **columns):
    """Reads characters one by one: none of them is a message."""
    ends = [text[0] + text[-1] + "".join(reversed(text))[:1] for text in completions]
    return [float(len(list(text)) > 3 and end[1] == end[2]) for text, end in zip(completions, ends, strict=True)]


def own_json(prompts, completions, **columns):
    """A response that is a JSON text, where an object is wanted, is a TypeError of its own making; 0.5 for no JSON."""
    try:
        read = [json.loads(text) for text in completions]
    except (ValueError, TypeError):
        return [0.5]
    return [float(answer["right"]) for answer in read]


def messages(prompts, completions, gold, **columns):
    texts = zip(prompts, completions, gold, strict=True)
    return [
        float(word in prompt[-1]["content"] and word in completion[0]["content"]) for prompt, completion, word in texts
    ]


def last_message(prompts, completions, gold, **columns):
    return [float(word in turns[-1].get("content", "")) for turns, word in zip(completions, gold, strict=True)]


def assistant_turns(prompts, completions, gold, **columns):
    """Swallows whatever goes wrong."""
    try:
        said = [" ".join(turn["content"] for turn in turns if turn["role"] == "assistant") for turns in completions]
        return [float(word in text) for text, word in zip(said, gold, strict=True)]
    except Exception:
        return [0.0]


def whole_chat(prompts, completions, gold, **columns):
    chats = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    return [float(all(word in turn["content"] for turn in chat)) for chat, word in zip(chats, gold, strict=True)]


def says_so(prompts, completions, gold, **columns):
    """Looks for a message, finds none in an empty text, and calls that wrong."""
    return [float(turns[0]["content"] == word) for turns, word in zip(completions, gold, strict=True)]


def text(prompts, completions, gold, **columns):
    texts = zip(prompts, completions, gold, strict=True)
    return [float(word in prompt.lower() and word in completion.lower()) for prompt, completion, word in texts]


def prompt_matches(prompts, completions, gold, **columns):
    """Only a plain text can be searched by a regular expression; nothing tells but the error."""
    import re

    return [float(bool(re.search(word, prompt))) for prompt, word in zip(prompts, gold, strict=True)]
