"""The project's own byte-level tokenizer, for models that are created from nothing.

One token a UTF-8 byte, so any text round-trips and digits stay single; EXAONE 4.0's special tokens; and the few
words of the tiny tasks. Think and tool tags are ordinary added tokens: decoders that skip special tokens would
hide them from rewards. Left out on purpose: learned merges, normalisation, a beginning-of-sequence token in texts.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from agapo.chat import chat_template

PAD, BOS, UNKNOWN, END_OF_TURN = "[PAD]", "[BOS]", "[UNK]", "[|endofturn|]"
SPECIAL = (PAD, BOS, END_OF_TURN, UNKNOWN, "[|system|]", "[|user|]", "[|assistant|]", "[|tool|]")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool>", "</tool>", "<tool_result>", "</tool_result>")
WORDS = ("\\boxed{", "sort")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer, chat template set. Ids: special tokens, the 256 bytes, tags, words; always the same."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *bytes_])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in (*TAGS, *WORDS)])
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
