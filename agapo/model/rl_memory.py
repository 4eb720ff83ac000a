"""How much memory RL takes, before anything is loaded: of a learner rank, and of a rollout actor.

Weights, gradients and optimizer are counted as in `memory.py`; what differs is that a rank takes a budget of tokens a
micro-batch, packed into rows, that its output layer works in chunks (`logprobs.py`), and that there is a reference
policy. A rank holds the most in one of these phases:

    output layer    the layers' inputs, a chunk's logits, and the head's gradient
    backward        what one layer keeps, and the layers' inputs (with gradient checkpointing; else all that they keep)
    end of backward the embedding's gradients
    update          the optimizer's

Measured on an H200 (docs/gpu.md), micro-batches of two models whose backward takes most: the estimate is 2 to 7 % off.
The output layer's part is counted on CPU (`python -m benchmarks.memory`); it has been on no GPU in its present form.
"""

from agapo.model.logprobs import CHUNK_ELEMENTS
from agapo.model.memory import (
    CONTEXT_BYTES,
    LIVE,
    SMALL,
    FineTuningSetup,
    Memory,
    Part,
    activation_parts,
    frozen_bytes,
    layer_bytes,
    overhead_part,
    small_count,
    state_parts,
    trained_count,
)
from agapo.model.operations import cache_bytes
from agapo.model.sizes import ModelSizes

CHUNK_COPIES = 3
"""Of a chunk's logits in float32: themselves, divided by the temperature, and their softmax."""
CACHE_SLACK = 1.05
"""Keys and values as they are held, beside what they have to take: caches grow in steps."""
SAMPLING_COPIES = 4
"""Of a step's logits in float32: themselves, their log-softmax, and what is drawn from them."""


def learner_memory(sizes: ModelSizes, setup: FineTuningSetup, *, reference: bool) -> Memory:
    """Return the memory that a rank of the RL learner takes, part by part.

    `setup`: rows as long as the longest sequence, as many as the micro-batch's tokens make; `reference`: whether there
    is a KL term, and so a reference policy of its own (with LoRA it is the policy).
    """
    inputs = sizes.layers * setup.residual * setup.tokens * sizes.hidden
    kept = inputs if setup.gradient_checkpointing else sizes.layers * layer_bytes(sizes, setup)
    parts = [
        *state_parts(sizes, setup),
        *activation_parts(sizes, setup),
        Part("layers' inputs", kept, "output layer"),
        Part("output layer", _head_bytes(sizes, setup), "output layer"),
        *(_reference_parts(sizes, setup) if reference and setup.adapters is None else []),
    ]
    if setup.adapters is None:
        parts += _last_gradients(sizes, setup)
    if setup.zero_stage == 3:
        gathered = gathered_bytes(sizes, setup)
        parts += [Part("gathered weights", gathered, when) for when in ("output layer", "end of backward")]
    return Memory([*parts, overhead_part(parts, setup.ranks)] if setup.gpu else parts)


def _head_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    tokens = min(setup.tokens, max(1, CHUNK_ELEMENTS // sizes.vocabulary))
    logits = CHUNK_COPIES * 4 * tokens * sizes.vocabulary
    gradient = setup.number * sizes.embedding if setup.adapters is None else 0
    return logits + gradient + 3 * setup.number * setup.tokens * sizes.hidden


def gathered_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Return what ZeRO-3 has gathered of a model when it comes to its output layer, which itself is gathered by us."""
    large = sizes.parameters - small_count(sizes)
    head = sizes.embedding if sizes.embedding > SMALL else 0
    return setup.number * (head + min(large - head, LIVE))


def _last_gradients(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    """Return what waits for the end of the backward pass: the gradient of the embedding, which comes last.

    Where it is the output layer too, that one's part waits from the beginning, and the two are added into a third.
    """
    one = setup.number * sizes.embedding
    parts = [Part("embedding's gradients", (3 if sizes.tied else 1) * one, "end of backward")]
    if sizes.tied:
        parts.append(Part("embedding's gradients", one, "backward"))
    if setup.zero_stage == 2:
        # A rank's share of a micro-batch's gradients, before it joins the sum.
        share = setup.number * -(-sizes.parameters // setup.ranks)
        parts += [Part("a micro-batch's gradients", share, when) for when in ("backward", "end of backward")]
    return parts


def _reference_parts(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    whole = setup.number * sizes.parameters
    if setup.zero_stage == 3:
        return [
            Part("reference", whole // setup.ranks, where=setup.place),
            Part("small weights", setup.number * small_count(sizes)),
            Part("gathered reference", gathered_bytes(sizes, setup), "reference"),
        ]
    if setup.offload:
        return [Part("reference", whole, where="host"), Part("reference", whole, "reference")]
    return [Part("reference", whole)]


def handed_over(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Return the bytes of the weights on their way to engines: in a buffer of the first rank, and in Ray's store."""
    return setup.number * trained_count(sizes, setup)


def engine_memory(
    sizes: ModelSizes, *, rows: int, columns: int, number: int, gpu: bool, quantized: bool = False
) -> Memory:
    """Return the memory that an actor with the transformers engine takes: `rows` responses of `columns` tokens at most.

    Sliding layers are counted as if they kept all tokens. `number`: bytes a number of the model's.
    """
    cache = round(CACHE_SLACK * cache_bytes(sizes, rows * columns, number))
    parts = [
        Part("weights", frozen_bytes(sizes, number, quantized=quantized)),
        Part("keys and values", cache),
        Part("logits", SAMPLING_COPIES * 4 * rows * sizes.vocabulary),
    ]
    return Memory([*parts, Part("CUDA, fragments", CONTEXT_BYTES)] if gpu else parts)
