"""What dialogues train on, token by token: by hand, beside transformers' own rendering, and under other templates."""

import json
import re
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from agapo.chat import chat_template, dialogue_examples, prompt_ids, trained_turns
from agapo.model.tokenizer import SPECIAL, TAGS, WORDS, build_tokenizer
from agapo.schema import Prompt

TOKENIZER = build_tokenizer()
IDS = TOKENIZER.get_vocab()
WHOLE = re.compile("|".join(map(re.escape, (*SPECIAL, *TAGS, *WORDS))))
EMPTY = "<think>\n\n</think>\n\n"
TOOL = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
LISTED = (
    "# Available Tools\nCall these tools where they help. Each is described as JSON within <tool> and </tool> tags:\n"
    f"<tool>{json.dumps(TOOL)}</tool>\n"
    "To call one, write its name and arguments as JSON within <tool_call> and </tool_call> tags:\n"
    '<tool_call>{"name": tool_name, "arguments": {argument_name: argument_value}}</tool_call>'
)


def system(content: str) -> dict:
    return {"role": "system", "content": content}


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def tool(content: object) -> dict:
    return {"role": "tool", "content": content}


def says(content: str | None, thinking: str | None = None, *calls: dict, **more) -> dict:
    return {"role": "assistant", "content": content, "reasoning_content": thinking, "tool_calls": list(calls), **more}


def call(**arguments) -> dict:
    return {"name": "add", "arguments": arguments}


def by_hand(text: str) -> tuple[list[int], list[int]]:
    """Ids and mask of a text in which «…» is trained: added tokens whole, and one token a byte of all else."""
    ids: list[int] = []
    mask: list[int] = []
    for position, part in enumerate(re.split("[«»]", text)):
        found = [token for piece in pieces(part) for token in piece]
        ids += found
        mask += [position % 2] * len(found)
    return ids, mask


def pieces(text: str) -> list[list[int]]:
    cut, start = [], 0
    for match in WHOLE.finditer(text):
        cut += [letters(text[start : match.start()]), [IDS[match[0]]]]
        start = match.end()
    return [*cut, letters(text[start:])]


def letters(text: str) -> list[int]:
    return [IDS[bytes_to_unicode()[byte]] for byte in text.encode()]


PLAIN = {
    "one turn": ([user("1+1"), says("2")], f"[|user|]\n1+1[|endofturn|]\n[|assistant|]\n{EMPTY}«2[|endofturn|]»"),
    "several turns and a system turn": (
        [system("S"), user("a"), says("b"), user("c"), says("d\ne")],
        f"[|system|]\nS[|endofturn|]\n[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}«b[|endofturn|]»\n"
        f"[|user|]\nc[|endofturn|]\n[|assistant|]\n{EMPTY}«d\ne[|endofturn|]»",
    ),
    "Korean and Spanish": (
        [user("안녕? ¿Qué tal?"), says("네 ñ \\boxed{1}")],
        f"[|user|]\n안녕? ¿Qué tal?[|endofturn|]\n[|assistant|]\n{EMPTY}«네 ñ \\boxed{{1}}[|endofturn|]»",
    ),
    "a turn left out": (
        [user("a"), says("bad", train=False), user("c"), says("d")],
        f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}bad[|endofturn|]\n"
        f"[|user|]\nc[|endofturn|]\n[|assistant|]\n{EMPTY}«d[|endofturn|]»",
    ),
    "the last turn left out": (
        [user("a"), says("b"), user("c"), says("d", train=False)],
        f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}«b[|endofturn|]»",
    ),
}
CALLED = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
TOOLS = {
    "a call, its result, an answer": (
        [user("a"), says(None, None, call(a=1)), tool("2"), says("b")],
        f"[|system|]\n{LISTED}[|endofturn|]\n[|user|]\na[|endofturn|]\n"
        f"[|assistant|]\n{EMPTY}«{CALLED}[|endofturn|]»\n"
        '[|tool|]\n<tool_result>{"result": "2"}</tool_result>[|endofturn|]\n'
        f"[|assistant|]\n{EMPTY}«b[|endofturn|]»",
    ),
    "parallel calls after a word": (
        [
            system("S"),
            user("a"),
            says("so", None, call(a=1), {"function": call(é="한")}),
            tool(2),
            tool({"x": 1}),
            says("b"),
        ],
        f"[|system|]\nS\n\n{LISTED}[|endofturn|]\n[|user|]\na[|endofturn|]\n"
        f"[|assistant|]\n{EMPTY}«so\n{CALLED}\n"
        '<tool_call>{"name": "add", "arguments": {"é": "한"}}</tool_call>[|endofturn|]»\n'
        '[|tool|]\n<tool_result>{"result": 2}</tool_result>\n'
        '<tool_result>{"result": {"x": 1}}</tool_result>[|endofturn|]\n'
        f"[|assistant|]\n{EMPTY}«b[|endofturn|]»",
    ),
    "a failed call, left out, and its recovery": (
        [
            user("a"),
            says(None, None, call(b=1), train=False),
            tool("error: no b"),
            says("", None, call(a=1)),
            tool(2),
            says("b"),
        ],
        f"[|system|]\n{LISTED}[|endofturn|]\n[|user|]\na[|endofturn|]\n"
        f'[|assistant|]\n{EMPTY}<tool_call>{{"name": "add", "arguments": {{"b": 1}}}}</tool_call>[|endofturn|]\n'
        '[|tool|]\n<tool_result>{"result": "error: no b"}</tool_result>[|endofturn|]\n'
        f"[|assistant|]\n{EMPTY}«{CALLED}[|endofturn|]»\n"
        '[|tool|]\n<tool_result>{"result": 2}</tool_result>[|endofturn|]\n'
        f"[|assistant|]\n{EMPTY}«b[|endofturn|]»",
    ),
}
REASONING = {
    "one turn": (
        [user("1+1"), says("2", "easy\nso")],
        ["[|user|]\n1+1[|endofturn|]\n[|assistant|]\n<think>\n«easy\nso\n</think>\n\n2[|endofturn|]»"],
    ),
    "past thinking is dropped, so each turn is an example": (
        [user("a"), says("b", "hm"), user("c"), says("d", "음")],
        [
            "[|user|]\na[|endofturn|]\n[|assistant|]\n<think>\n«hm\n</think>\n\nb[|endofturn|]»",
            f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}b[|endofturn|]\n"
            "[|user|]\nc[|endofturn|]\n[|assistant|]\n<think>\n«음\n</think>\n\nd[|endofturn|]»",
        ],
    ),
    "a past turn without thinking is context": (
        [user("a"), says("b"), user("c"), says("d", "hm")],
        [
            f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}b[|endofturn|]\n"
            "[|user|]\nc[|endofturn|]\n[|assistant|]\n<think>\n«hm\n</think>\n\nd[|endofturn|]»",
        ],
    ),
    "a last turn without thinking is trained, the block empty": (
        [user("a"), says("b", "hm", train=False), user("c"), says("d", "")],
        [
            f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}b[|endofturn|]\n"
            "[|user|]\nc[|endofturn|]\n[|assistant|]\n<think>\n«\n</think>\n\nd[|endofturn|]»",
        ],
    ),
    "a turn without thinking is trained when it says so": (
        [user("a"), says("b", train=True), user("c"), says("d", "hm", train=False)],
        ["[|user|]\na[|endofturn|]\n[|assistant|]\n<think>\n«\n</think>\n\nb[|endofturn|]»"],
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_by_hand(name):
    messages, expected = PLAIN[name]
    assert dialogue_examples(TOKENIZER, messages, "non_reasoning") == [by_hand(expected)]


@pytest.mark.parametrize("name", TOOLS)
def test_tools_by_hand(name):
    messages, expected = TOOLS[name]
    assert dialogue_examples(TOKENIZER, messages, "non_reasoning", [TOOL]) == [by_hand(expected)]


@pytest.mark.parametrize("name", REASONING)
def test_reasoning_by_hand(name):
    messages, expected = REASONING[name]
    assert dialogue_examples(TOKENIZER, messages, "reasoning") == [by_hand(text) for text in expected]


def test_thinking_before_a_call():
    messages = [user("a"), says(None, "add it", call(a=1)), tool("2"), says("b", "done")]
    first, second = dialogue_examples(TOKENIZER, messages, "reasoning", [TOOL])
    start = f"[|system|]\n{LISTED}[|endofturn|]\n[|user|]\na[|endofturn|]\n[|assistant|]\n"
    assert first == by_hand(f"{start}<think>\n«add it\n</think>\n\n{CALLED}[|endofturn|]»")
    result = '[|tool|]\n<tool_result>{"result": "2"}</tool_result>[|endofturn|]\n[|assistant|]\n<think>\n'
    assert second == by_hand(f"{start}{EMPTY}{CALLED}[|endofturn|]\n{result}«done\n</think>\n\nb[|endofturn|]»")


def marked(messages, mode, tools=None, tokenizer=TOKENIZER) -> tuple[list[int], list[int]]:
    """Ids and mask as transformers has them, from the template's generation markers."""
    encoded = tokenizer.apply_chat_template(
        messages,
        tools=tools,
        enable_thinking=mode == "reasoning",
        skip_think=False,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return encoded["input_ids"], encoded["assistant_masks"]


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "the last turn left out"])
def test_is_what_transformers_marks(name):
    messages = PLAIN[name][0]
    [(ids, mask)] = dialogue_examples(TOKENIZER, messages, "non_reasoning")
    assert marked(messages, "non_reasoning") == (ids + letters("\n"), [*mask, 0])


@pytest.mark.parametrize("name", TOOLS)
def test_is_what_transformers_marks_of_tools(name):
    messages = TOOLS[name][0]
    [(ids, mask)] = dialogue_examples(TOKENIZER, messages, "non_reasoning", [TOOL])
    assert marked(messages, "non_reasoning", [TOOL]) == (ids + letters("\n"), [*mask, 0])


@pytest.mark.parametrize("name", REASONING)
def test_is_what_transformers_marks_of_thinking(name):
    """An example a turn: the dialogue up to there, the turns before it left out of the loss."""
    messages = REASONING[name][0]
    examples = dialogue_examples(TOKENIZER, messages, "reasoning")
    for index, (ids, mask) in zip(trained_turns(messages, "reasoning"), examples, strict=True):
        past = [{**turn, "train": False} for turn in messages[:index]]
        assert marked([*past, messages[index]], "reasoning") == (ids + letters("\n"), [*mask, 0])


class TestTrainedTurns:
    @pytest.mark.parametrize(
        ("messages", "mode", "message"),
        [
            ([], "reasoning", "end with the assistant's turn"),
            ([user("a")], "reasoning", "end with the assistant's turn"),
            ([user("a"), says("b")], "reasoning", "should have 'reasoning_content'"),
            ([user("a"), says("b", " \n")], "reasoning", "should have 'reasoning_content'"),
            ([user("a"), says("b", train=False)], "non_reasoning", "without 'train: false'"),
        ],
    )
    def test_nothing_to_train_on(self, messages, mode, message):
        with pytest.raises(ValueError, match=message):
            dialogue_examples(TOKENIZER, messages, mode)

    def test_thinking_is_left_out_without_the_mode(self):
        [(ids, mask)] = dialogue_examples(TOKENIZER, [user("a"), says("b", "hm")], "non_reasoning")
        assert (ids, mask) == by_hand(f"[|user|]\na[|endofturn|]\n[|assistant|]\n{EMPTY}«b[|endofturn|]»")

    def test_newlines_around_thinking_and_answer_are_the_templates(self):
        [example] = dialogue_examples(TOKENIZER, [user("a"), says("\nb", "\nhm\n")], "reasoning")
        expected = "[|user|]\na[|endofturn|]\n[|assistant|]\n<think>\n«hm\n</think>\n\nb[|endofturn|]»"
        assert example == by_hand(expected)


def with_template(template: str) -> PreTrainedTokenizerFast:
    """The project's tokenizer with another template, of the ChatML family."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False)])
    tokenizer.chat_template = template
    return tokenizer


def qwen3() -> str:
    return (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")


SIMPLE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Past turns have no block though the prompt of a plain answer does; knows neither thinking nor calls."""


def merging() -> PreTrainedTokenizerFast:
    """The project's template under learned merges that reach over the borders between prompt and answer."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[*SPECIAL, *TAGS],
        show_progress=False,
    )
    core.train_from_iterator(["\n\na", "\n\n\n", "\na", "\nb\n", "\n\nb ab", "hm\n"] * 50, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="[|endofturn|]", pad_token="[PAD]", chat_template=chat_template()
    )


TOKENIZERS = {
    "exaone": TOKENIZER,
    "qwen3": with_template(qwen3()),
    "simple": with_template(SIMPLE),
    "merges": merging(),
}


def assert_exact(tokenizer, messages, mode, tools=None) -> int:
    """Each trained turn stands after its `prompt_ids` and ends its stretch; returns the number of examples."""
    examples = dialogue_examples(tokenizer, messages, mode, tools)
    turns = iter(trained_turns(messages, mode))
    for ids, mask in examples:
        assert len(ids) == len(mask) and mask[-1] == 1 and mask[0] == 0
        starts = [at for at in range(1, len(mask)) if mask[at] > mask[at - 1]]
        ends = [at for at in range(1, len(mask)) if mask[at] < mask[at - 1]] + [len(mask)]
        for start, end in zip(starts, ends, strict=True):
            index = next(turns)
            prompt = Prompt("p", tuple(messages[:index]), mode=mode, columns={"tools": tools})
            assert ids[:start] == prompt_ids(tokenizer, prompt)
            said = str(tokenizer.decode(ids[start:end]))
            assert said.endswith(tokenizer.eos_token) and (messages[index]["content"] or "") in said
            assert said.count("</tool_call>") == len(messages[index]["tool_calls"])
            assert mode != "reasoning" or f"{messages[index]['reasoning_content'] or ''}\n</think>\n\n" in said
    assert next(turns, None) is None
    return len(examples)


TEXT = st.text(alphabet="ab\n 한é{", min_size=1, max_size=6)
THINKING = st.none() | TEXT.map(str.strip)
EXCHANGE = st.tuples(
    TEXT.map(user), st.builds(says, TEXT.map(str.strip).filter(bool), THINKING, train=st.sampled_from([None, True]))
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(exchanges=st.lists(EXCHANGE, min_size=1, max_size=4), mode=st.sampled_from(["reasoning", "non_reasoning"]))
def test_the_model_is_trained_on_what_it_sees(name, exchanges, mode):
    messages = [turn for exchange in exchanges for turn in exchange]
    if mode == "reasoning":
        messages[-1] = {**messages[-1], "reasoning_content": "hm"}
    assert_exact(TOKENIZERS[name], messages, mode)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("dialogue", TOOLS)
def test_the_model_is_trained_on_what_it_sees_with_tools(name, dialogue):
    messages = [{**turn, "content": str(turn["content"] or "")} for turn in TOOLS[dialogue][0]]
    assert_exact(TOKENIZERS[name], messages, "non_reasoning", [TOOL])


class TestQwen3:
    """Its template leaves the empty block out of past turns, and writes calls in its own way."""

    TOKENIZER = TOKENIZERS["qwen3"]

    def texts(self, messages, mode, tools=None) -> list[str]:
        assert_exact(self.TOKENIZER, messages, mode, tools)
        examples = dialogue_examples(self.TOKENIZER, messages, mode, tools)
        return [self.show(ids, mask) for ids, mask in examples]

    def show(self, ids: list[int], mask: list[int]) -> str:
        text, on = "", 0
        for token, trained in zip(ids, mask, strict=True):
            text += ("«" if trained else "»") * (trained != on) + self.TOKENIZER.decode([token])
            on = trained
        return text + "»" * on

    def test_plain_turns_are_apart(self):
        assert self.texts([user("a"), says("b"), user("c"), says("d")], "non_reasoning") == [
            f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{EMPTY}«b<|im_end|>»",
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            f"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n{EMPTY}«d<|im_end|>»",
        ]

    def test_thinking_between_calls_is_kept_so_turns_are_joined(self):
        messages = [user("a"), says("", "hm", call(a=1)), tool("2"), says("b", "so")]
        [text] = self.texts(messages, "reasoning", [TOOL])
        assert text.partition("<|im_start|>assistant\n")[2] == (
            '«<think>\nhm\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>»\n'
            "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n«<think>\nso\n</think>\n\nb<|im_end|>»"
        )


def test_turns_are_joined_under_merges_unless_a_merge_reaches_over_a_border():
    tokenizer = TOKENIZERS["merges"]
    joined = [user("a"), says("é"), user("c"), says("é")]
    across = [user("a"), says("a"), user("c"), says("é")]
    assert len(tokenizer("\n\na")["input_ids"]) == 1
    assert assert_exact(tokenizer, joined, "non_reasoning") == 1
    assert assert_exact(tokenizer, across, "non_reasoning") == 2


def trained_text(tokenizer, messages, mode, tools=None) -> list[str]:
    examples = dialogue_examples(tokenizer, messages, mode, tools)
    return [str(tokenizer.decode([token for token, on in zip(*example, strict=True) if on])) for example in examples]


def test_a_template_that_knows_neither_thinking_nor_calls_gets_exaones_format():
    messages = [user("a"), says("b", "hm", call(a=1))]
    expected = [f"<think>\nhm\n</think>\n\nb\n{CALLED}<|im_end|>"]
    assert trained_text(TOKENIZERS["simple"], messages, "reasoning") == expected


def test_a_template_that_knows_no_thinking_keeps_its_calls():
    tokenizer = with_template((files("trl") / "chat_templates" / "qwen2_5.jinja").read_text(encoding="utf-8"))
    messages = [user("a"), says("b", "hm", call(a=1))]
    called = 'b\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>'
    assert trained_text(tokenizer, messages, "reasoning", [TOOL]) == [f"<think>\nhm\n</think>\n\n{called}"]
    assert trained_text(tokenizer, messages, "non_reasoning", [TOOL]) == [called]


def test_a_template_that_shows_an_empty_block_for_any_thinking():
    """EXAONE's where `skip_think` is not known."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat_template().replace("skip_think | default(true)", "true")
    assert trained_text(tokenizer, [user("a"), says("b", "hm")], "reasoning") == ["hm\n</think>\n\nb[|endofturn|]"]


def test_what_a_template_adds_after_the_end_of_turn_is_left_out():
    tokenizer = with_template(SIMPLE + "{% if not add_generation_prompt %}<|im_end|>{% endif %}")
    assert trained_text(tokenizer, [user("a"), says("b", "hm")], "reasoning") == [
        "<think>\nhm\n</think>\n\nb<|im_end|>"
    ]
