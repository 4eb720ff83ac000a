"""How much memory fine-tuning takes, before anything is loaded: an estimate for each rank, part by part.

Of P parameters, T of them trained, on N ranks in bytes (ZeRO: arXiv 1910.02054; DeepSpeed keeps float32 copies of
bfloat16 weights, plain PyTorch trains float32 weights and computes in bfloat16):

                     weights   float32 copies   gradients   AdamW's two moments
    no ZeRO, full    4·P       –                4·T         8·T
    no ZeRO, LoRA    b·P       –                4·T         8·T
    ZeRO 1           b·P       4·T/N            4·T         8·T/N
    ZeRO 2           b·P       4·T/N            4·T/N       8·T/N
    ZeRO 3           b·P/N     4·T/N            4·T/N       8·T/N

with b bytes a number of `model.dtype`. Gradients are summed over micro-batches in float32 (`deepspeed_config.py`);
ZeRO 1 in bfloat16 reduces that sum where it lies, without a bucket, and ZeRO 3 copies its share for the optimizer.

What a layer keeps for the backward pass is counted, as in Korthikanti et al. (arXiv 2205.05198, §4.1), from the tensors
that its operations save, here for RMS norms in float32, grouped queries, SwiGLU, no dropout and attention that keeps no
scores. Bytes a token and layer:

    norms 2·(4 + r)·H   linear inputs 2·c·H   query and key norms (4 + c)·(Q + K)
    attention c·(2·Q + 2·K)   SwiGLU 4·c·I

with c bytes a number that is computed and r one of the residual stream. Under adapters the norms' weights are frozen,
and r and c fall out of the first and third term; in bfloat16 about as much is kept for the adapters instead. With
gradient checkpointing only a layer's input (r·H) is kept, and all of the above for one layer at a time.

Left out: what allocators lose in pieces beyond a flat share, and the pages of files that are read.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from agapo.model.operations import layer_weights
from agapo.model.sizes import NF4_BLOCK, ModelSizes

GIB = 1024**3
BUCKET = 500_000_000
"""Numbers in DeepSpeed's buffer for reducing gradients (its default)."""
LIVE = 1_050_000_000
"""Weights that ZeRO-3 holds gathered, or fetches ahead, at once (its defaults)."""
SMALL = 100_000
"""Numbers up to which ZeRO-3 keeps a parameter whole (its default)."""
HEAD_TILE = (4096, 32768)
"""Tokens × vocabulary of which TRL's fused output layer computes logits at once; the whole is never in memory."""
CONTEXT_BYTES = int(0.75 * GIB)
"""Of CUDA and its libraries."""
COMMUNICATION_BYTES = int(0.75 * GIB)
"""Of NCCL's buffers, with several ranks."""
LOST = 0.05
"""Share of all else that is lost in pieces."""

When = Literal["always", "output layer", "backward", "end of backward", "update", "reference"]
Where = Literal["gpu", "host", "disk"]


@dataclass(frozen=True)
class SharedBlocks:
    """What the row of a micro-batch is made of in RL where responses share their prompt (`shared_prompts.py`)."""

    blocks: int
    """Prompts in the row."""
    prompt: int
    """Tokens of a prompt."""
    responses: int
    """Responses to a prompt."""
    response: int
    """Tokens of a response."""

    @property
    def slots(self) -> int:
        """Tokens of the row."""
        return self.blocks * (self.prompt + self.responses * self.response)

    @property
    def seen(self) -> int:
        """Keys that attention is handed: each prompt's own, and for each response its prompt's and its own."""
        return self.blocks * (self.prompt + self.responses * (self.prompt + self.response))

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that masks are made for: one mask for all prompts, one for each response."""
        return self.prompt**2 + self.blocks * self.responses * self.response * (self.prompt + self.response)


@dataclass(frozen=True)
class FineTuningSetup:
    """What the memory of a rank depends on, besides the model."""

    row_tokens: int
    micro_rows: int
    ranks: int = 1
    zero_stage: int = 0
    offload: bool = False
    on_disk: bool = False
    """Whether that is to a disk instead of the host's memory."""
    bfloat16: bool = True
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    adapters: int | None = None
    """Parameters of the LoRA adapters; None trains all weights."""
    quantized: bool = False
    """Whether frozen linear maps are held in 4 bits (`quantized.py`)."""
    sequence_parallel: int = 1
    """Ranks that share each row; `row_tokens` are a rank's."""
    background: bool = False
    """Whether checkpoints are copied to the host's memory, and written from there."""
    gpu: bool = True
    shared: SharedBlocks | None = None
    """The micro-batch's row, where responses share their prompt."""

    @property
    def number(self) -> int:
        """Bytes of a number that is computed (`c`)."""
        return 2 if self.bfloat16 else 4

    @property
    def place(self) -> Where:
        """Where lies what may be offloaded."""
        return ("disk" if self.on_disk else "host") if self.offload else "gpu"

    @property
    def autocast(self) -> bool:
        """Whether float32 weights are computed with in bfloat16."""
        return self.bfloat16 and not self.zero_stage and self.adapters is None

    @property
    def residual(self) -> int:
        """Bytes of a number of the residual stream (`r`)."""
        return 4 if self.autocast else self.number

    @property
    def squares(self) -> int:
        """Pairs of tokens of all rows of a micro-batch: whole ones, in attention."""
        return self.micro_rows * (self.row_tokens * self.sequence_parallel) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_rows * self.row_tokens


@dataclass(frozen=True)
class Part:
    """One item of a rank's memory."""

    name: str
    bytes: int
    when: When = "always"
    """All the time, or only in that phase of a step."""
    where: Where = "gpu"
    """In a GPU's memory, its host's, or on a disk of the host."""


@dataclass(frozen=True)
class Memory:
    """The parts of a rank's memory."""

    parts: list[Part]

    def of(self, name: str) -> int:
        """Return the bytes of the parts of a name."""
        return sum(part.bytes for part in self.parts if part.name == name)

    @property
    def at_worst(self) -> list[Part]:
        """The parts on the GPU at the time of most: what is always there, and the largest of the phases."""
        here = [part for part in self.parts if part.where == "gpu"]
        phases = [[part for part in here if part.when == when] for when in get_args(When)[1:]]
        most = max(phases, key=lambda parts: sum(part.bytes for part in parts))
        return [part for part in here if part.when == "always"] + most

    @property
    def idle_bytes(self) -> int:
        """On the GPU all the time, in no phase alone."""
        return sum(part.bytes for part in self.parts if part.when == "always" and part.where == "gpu")

    @property
    def gpu_bytes(self) -> int:
        """The most at any time."""
        return sum(part.bytes for part in self.at_worst)

    @property
    def host_bytes(self) -> int:
        """Of a rank, in its host's memory."""
        return sum(part.bytes for part in self.parts if part.where == "host")

    @property
    def disk_bytes(self) -> int:
        """Of a rank, on a disk of its host."""
        return sum(part.bytes for part in self.parts if part.where == "disk")


def training_memory(sizes: ModelSizes, setup: FineTuningSetup) -> Memory:
    """Return the memory that a rank takes on a GPU, part by part."""
    parts = [*state_parts(sizes, setup), *activation_parts(sizes, setup), *_head_parts(sizes, setup)]
    if not setup.gpu:
        return Memory(parts)
    return Memory([*parts, overhead_part(parts, setup.ranks)])


def overhead_part(parts: list[Part], ranks: int) -> Part:
    """Return what CUDA takes, NCCL between several ranks, and what allocators lose."""
    lost = round(LOST * Memory(parts).gpu_bytes)
    return Part("CUDA, NCCL, fragments", CONTEXT_BYTES + (COMMUNICATION_BYTES if ranks > 1 else 0) + lost)


# --- weights, gradients and optimizer ---


def state_parts(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    """Return weights, gradients and the optimizer's state, with what is needed to reduce and apply gradients."""
    parts = _sharded_state(sizes, setup) if setup.zero_stage else _plain_state(sizes, setup)
    if setup.background:
        parts.append(Part("copy for a checkpoint", _saved_bytes(sizes, setup), where="host"))
    return parts


def trained_count(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Return how many parameters are trained: all, or the adapters'."""
    return sizes.parameters if setup.adapters is None else setup.adapters


def _saved_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Of the first rank, which saves the weights that are trained, and its share of the optimizer as all do."""
    trained = trained_count(sizes, setup)
    share = -(-trained // setup.ranks) if setup.zero_stage else trained
    weights = share if setup.zero_stage == 3 else trained
    return (setup.number if setup.zero_stage else 4) * weights + (12 if setup.zero_stage else 8) * share


def _plain_state(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    frozen = 0 if setup.adapters is None else frozen_bytes(sizes, setup.number, quantized=setup.quantized)
    trained = trained_count(sizes, setup)
    parts = [
        Part("weights", frozen + 4 * trained),
        Part("gradients", 4 * trained),
        Part("optimizer", 8 * trained),
    ]
    if setup.ranks > 1:
        parts.append(Part("buckets", 4 * trained))
    if setup.autocast:
        # Kept from the forward pass on: each is an operand of a product whose gradient needs it.
        parts.append(Part("bfloat16 weights", 2 * layer_weights(sizes), "backward"))
    return parts


def _sharded_state(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    trained, number = trained_count(sizes, setup), setup.number
    whole = sizes.parameters + (setup.adapters or 0)
    share = -(-trained // setup.ranks)
    sharded = setup.zero_stage == 3
    weights = number * (-(-whole // setup.ranks) if sharded else whole)
    if setup.quantized:  # never sharded
        weights = frozen_bytes(sizes, number, quantized=True) + number * trained
    # Where the optimizer is in the host's memory, so are the gradients that it is given.
    gradients = 4 * (trained if setup.zero_stage == 1 else share)
    parts = [
        Part("weights", weights, where=setup.place if sharded else "gpu"),
        Part("gradients", gradients, where=setup.place if setup.zero_stage > 1 else "gpu"),
        Part("optimizer", (4 + 8) * share, where=setup.place),
    ]
    if sharded or setup.offload or not setup.bfloat16:
        parts.append(Part("optimizer's gradients", 4 * share, "update", where=setup.place))
    if setup.zero_stage > 1 or setup.offload or not setup.bfloat16:
        parts.append(Part("buckets", number * BUCKET))
    if sharded:
        parts.append(Part("small weights", number * small_count(sizes)))
        parts.append(Part("gathered weights", number * min(whole - small_count(sizes), LIVE), "backward"))
    return parts


def small_count(sizes: ModelSizes) -> int:
    """Return how many of the parameters ZeRO-3 does not divide: of small tensors, which all ranks keep."""
    linear = [inputs * outputs for inputs, outputs in sizes.linear.values() if inputs * outputs > SMALL]
    embeddings = sizes.embedding * (1 if sizes.tied else 2) if sizes.embedding > SMALL else 0
    return sizes.parameters - sizes.layers * sum(linear) - embeddings


def frozen_bytes(sizes: ModelSizes, number: int, *, quantized: bool) -> int:
    """Return the bytes of weights that are not trained, `number` each; linear maps 4 bits and a scale a block, if so.

    Of a quantized map the product takes a whole copy for the moment: the largest one's is counted.
    """
    if not quantized:
        return number * sizes.parameters
    linear = [inputs * outputs for inputs, outputs in sizes.linear.values() if inputs % NF4_BLOCK == 0]
    held = sizes.layers * sum(linear)
    return number * (sizes.parameters - held) + held // 2 + 4 * held // NF4_BLOCK + number * max(linear, default=0)


# --- activations ---


def layer_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Return what one layer keeps for the backward pass, for a micro-batch."""
    c, r, hidden, queries, keys = setup.number, setup.residual, sizes.hidden, sizes.queries, sizes.keys
    frozen_norms = setup.adapters is not None and not setup.bfloat16
    own_r, own_c = (0, 0) if frozen_norms else (r, c)
    token = (
        2 * (4 + own_r) * hidden
        + 2 * c * hidden
        + (4 + own_c) * (queries + keys)
        + c * (2 * queries + 2 * keys)
        + 4 * c * sizes.intermediate
    )
    return setup.tokens * token + _score_bytes(sizes, setup)


def _score_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Of one layer, what grows with the square of a row: nothing under flash attention.

    SDPA repeats keys and values to all heads where there is a mask, and keeps the mask as numbers to add; eager
    attention keeps the scores of all heads, and their softmax in float32 before it is rounded.
    """
    if setup.shared:
        return _shared_bytes(sizes, setup, setup.shared)
    c, repeated = setup.number, setup.number * setup.tokens * 2 * (sizes.queries - sizes.keys)
    if setup.attention == "sdpa":
        return repeated + c * setup.squares
    if setup.attention == "eager":
        return repeated + (4 + c) * sizes.heads * setup.squares
    return 0


def _shared_bytes(sizes: ModelSizes, setup: FineTuningSetup, own: SharedBlocks) -> int:
    """Of one layer, beyond what is kept of every token: SDPA in the slots of tiles.

    Keys and values are repeated for each response and to all heads, the output lies in slots and in the row, and each
    response's mask is kept as numbers to add. Responses are counted as long as they may be; shorter ones, more of which
    make a row, repeat their prompts oftener.
    """
    keys_and_values = 2 * own.seen * sizes.queries - 2 * own.slots * sizes.keys
    return setup.number * (keys_and_values + own.slots * sizes.queries + own.pairs)


def mask_bytes(sizes: ModelSizes, setup: FineTuningSetup) -> int:
    """Return what the masks of packed rows take: tokens × tokens for each kind of layer, unless flash attention does.

    transformers finds the dialogues of a row by their positions, and then cannot leave the mask to the kernel
    (`masking_utils.sdpa_mask`: `allow_is_causal_skip=False`): one byte a pair of tokens, in eager attention a number.
    """
    if setup.attention == "flash_attention_2":
        return 0
    if setup.shared:
        # Made anew in each layer: as one byte a pair, from a distance of eight.
        return setup.shared.pairs + 8 * setup.shared.blocks * setup.shared.response * setup.shared.prompt
    kinds = (sizes.local_layers > 0) + (sizes.local_layers < sizes.layers)
    pair = 1 if setup.attention == "sdpa" else setup.number
    return kinds * pair * setup.squares


def activation_parts(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    """Return what the layers keep for the backward pass, and what it needs on top."""
    layer = layer_bytes(sizes, setup)
    if setup.gradient_checkpointing:
        kept = sizes.layers * setup.residual * setup.tokens * sizes.hidden + layer
    else:
        kept = sizes.layers * layer
    # Gradients of three of SwiGLU's tensors, or a norm's in float32, are alive at once.
    working = setup.tokens * max(3 * setup.number * sizes.intermediate, 4 * 4 * sizes.hidden)
    return [
        Part("activations", kept + working, "backward"),
        *([Part("attention masks", masks, "backward")] if (masks := mask_bytes(sizes, setup)) else []),
    ]


def _head_parts(sizes: ModelSizes, setup: FineTuningSetup) -> list[Part]:
    """The last norm and TRL's fused output layer: hidden states, a tile of logits, float32 gradients."""
    hidden = setup.tokens * sizes.hidden * (4 + 2 * setup.residual + 4)
    tile = setup.number * min(setup.tokens, HEAD_TILE[0]) * HEAD_TILE[1]
    gradient = (4 + setup.number) * sizes.embedding if setup.adapters is None else 0
    return [Part("output layer", hidden + tile + gradient, "backward")]
