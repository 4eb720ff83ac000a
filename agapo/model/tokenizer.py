"""The project's own tokenizers, for models that are created from nothing.

`build_tokenizer`: one token a UTF-8 byte. `train_tokenizer`: byte-pair merges learned from a recipe's own texts. In
both any text round-trips, digits stay single, and EXAONE 4.0's special tokens, the tags and a few words are whole.
Think and tool tags are ordinary added tokens: decoders that skip special tokens would hide them from rewards. Left
out on purpose: normalisation, a beginning-of-sequence token in texts.
"""

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agapo.chat import chat_template

PAD, BOS, UNKNOWN, END_OF_TURN = "[PAD]", "[BOS]", "[UNK]", "[|endofturn|]"
SPECIAL = (PAD, BOS, END_OF_TURN, UNKNOWN, "[|system|]", "[|user|]", "[|assistant|]", "[|tool|]")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool>", "</tool>", "<tool_result>", "</tool_result>")
WORDS = ("\\boxed{", "sort")
SMALLEST = len(SPECIAL) + 256 + len(TAGS) + len(WORDS) + 2
"""Entries without any merge."""

_PIECES = r"\p{N}| ?[\p{L}\p{M}]+|(?: ?[^\s\p{L}\p{M}\p{N}]+)+|\s+"
"""What merges stay within: a digit, a word, a run of punctuation (JSON's spans spaces), a run of white space."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the byte tokenizer, template set. Ids: special tokens, the 256 bytes, tags, words; always the same."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *bytes_])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _finished(core)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most `vocabulary_size` entries, learned from `texts`, template set.

    Texts may hold special tokens and tags (rendered chats): these are no part of any merge. What the template says
    around the list of tools, always the same, is a token before and a token after the list. Ids: special tokens, the
    256 bytes, merges by frequency, tags, words, those two; the same texts give the same tokenizer. Fewer entries where
    the texts have no more pairs. Raises ValueError below `SMALLEST` entries.
    """
    if vocabulary_size < SMALLEST:
        raise ValueError(
            f"a vocabulary needs {SMALLEST} entries for bytes, tags and special tokens, not {vocabulary_size}"
        )
    phrases = _around_tools()
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(TAGS) - len(WORDS) - len(phrases),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_between_tags(texts, phrases), trainer)
    return _finished(core, phrases)


def _around_tools() -> tuple[str, str]:
    """Return what the chat template says before and after the list of tools."""
    system = build_tokenizer().apply_chat_template([{"role": "user", "content": ""}], tools=[{}], tokenize=False)
    assert isinstance(system, str)
    before, after = system.split("[|user|]")[0].split("<tool>{}</tool>\n")
    return before.removeprefix("[|system|]\n"), after.removesuffix(f"{END_OF_TURN}\n")


def _between_tags(texts: Iterable[str], phrases: Sequence[str]) -> Iterable[str]:
    whole = re.compile("|".join(map(re.escape, (*phrases, *SPECIAL, *TAGS, *WORDS))))
    return (part for text in texts for part in whole.split(text) if part)


def _finished(core: Tokenizer, phrases: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in (*TAGS, *WORDS, *phrases)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END_OF_TURN,
        unk_token=UNKNOWN,
        chat_template=chat_template(),
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
