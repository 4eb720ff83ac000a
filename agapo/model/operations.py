"""How much work a model is, before anything is loaded: operations of learning, and bytes that decoding reads.

Of a sequence of S tokens, R of them with logits, with W weights in the layers' linear maps, V·H in the output layer, L
layers and queries Q wide, in floating-point operations:

    forward     layers 2·W·S   attention 2·L·Q·S²   output layer 2·V·H·R
    backward    twice that; of frozen weights (LoRA) once, as only their inputs have gradients
    adapters    of A parameters, 6·A·S
    gradient checkpointing: layers, attention and adapters forward once more

So 6·N a token for N weights (Kaplan et al., arXiv 2001.08361, §2.1), and attention's two products over S/2
earlier tokens on average (PaLM, arXiv 2204.02311, appendix B, halved for causal attention). Sliding layers are counted
as if they attended over all tokens.

A decode step reads every weight once, whatever the rows, and each row's keys and values (Pope et al., arXiv 2211.05102,
§2.1): bytes / bandwidth is the least that it takes.
"""

from agapo.model.sizes import ModelSizes


def layer_weights(sizes: ModelSizes) -> int:
    """Return the weights of all linear maps of all layers (W)."""
    return sizes.layers * sum(inputs * outputs for inputs, outputs in sizes.linear.values())


def forward_operations(sizes: ModelSizes, tokens: float, headed: float) -> float:
    """Return the operations of a forward pass over a sequence of `tokens`, `headed` of them with logits."""
    attention = 2 * sizes.layers * sizes.queries * tokens**2
    return 2 * layer_weights(sizes) * tokens + attention + 2 * sizes.embedding * headed


def training_operations(
    sizes: ModelSizes, tokens: float, headed: float, *, adapters: int | None = None, checkpointing: bool = False
) -> float:
    """Return the operations of a forward and a backward pass; `adapters`: of LoRA's parameters, None trains all."""
    forward = forward_operations(sizes, tokens, headed)
    attention = 2 * sizes.layers * sizes.queries * tokens**2
    linear = forward - attention
    added = 2 * (adapters or 0) * tokens
    work = (3 if adapters is None else 2) * linear + 3 * attention + 3 * added
    again = forward_operations(sizes, tokens, 0) + added
    return work + again if checkpointing else work


def cache_bytes(sizes: ModelSizes, tokens: float, number: int) -> float:
    """Return the bytes of the keys and values of so many tokens; `number`: bytes a number."""
    return 2 * number * sizes.layers * sizes.keys * tokens


def decode_bytes(sizes: ModelSizes, rows: float, context: float, number: int) -> float:
    """Return the bytes that a decode step reads: the weights, and what `rows` of `context` tokens hold.

    An embedding that is not the output layer too is not read, but for a line a row.
    """
    weights = sizes.parameters - (0 if sizes.tied else sizes.embedding)
    return number * weights + cache_bytes(sizes, rows * context, number)
