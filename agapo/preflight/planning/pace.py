"""How long the phases of a step should take, from a described cluster's rates: operations / speed, bytes / bandwidth.

    learning    operations / (ranks · tflops · learning_share); the network's time where that is more, they overlap
                and then what is offloaded: bytes / offload_gb_s
    decoding    steps · (host + bytes read / (GPUs of the actor · bandwidth · bandwidth_share))
    prefill     operations of the prompts' forward pass / (GPUs of the actor · tflops · learning_share)
    weights     packed, taken by the engines, and once over the network to each other host that has some

The host's time and the weights' are measured on one H200 with a slow host (docs/gpu.md): 64 and 256 rows of the shape
of Qwen3-0.6B, of which the GPU's share by this very formula was taken off. Responses end at different lengths: a batch
is not done before its longest one, which is taken to be as long as the recipe allows.

Left out: evaluations, rewards, refills, starting up, an offloaded reference's way to the GPU, tensor parallelism's
communication.
"""

from dataclasses import dataclass

from agapo.model.memory import FineTuningSetup
from agapo.model.operations import cache_bytes, decode_bytes, forward_operations, training_operations
from agapo.model.sizes import ModelSizes
from agapo.recipe.hardware import RatesConfig

VLLM_STEP_S, VLLM_ROW_S = 1.7e-3, 30e-6
"""vLLM's host time of a decode step, and of each row: 11,500 tokens/s at 64 rows, 16,200 at 256."""
LAYER_STEP_S, TRANSFORMERS_ROW_S = 2.4e-3, 48e-6
"""The transformers engine's, of a layer's step and of each row: 890 and 2,990 tokens/s, with 28 layers."""
PACK_BYTES_S, TAKE_BYTES_S = 1.5e9, 1.95e9
"""Weights handed over: 1.11 GiB packed from the GPU in 0.79 s, taken in 0.61 s."""
SLEEP_S = 0.96 + 0.29
"""An engine gives back its GPU's memory (85 GiB), and wakes."""


@dataclass(frozen=True)
class Lengths:
    """What prompts and responses are like, in tokens."""

    prompt: float
    """On average."""
    response: float
    """On average."""
    longest: int
    """Of a response."""

    @property
    def sequence(self) -> float:
        """Prompt and response, on average."""
        return self.prompt + self.response


# --- learning ---


def learn_seconds(
    sizes: ModelSizes, setup: FineTuningSetup, rates: RatesConfig, *, sequences: float, tokens: float, headed: float
) -> float | None:
    """Return the seconds of all forward and backward passes over `sequences` of `tokens`, `headed` of them with logits.

    None without `rates.tflops`.
    """
    one = training_operations(
        sizes, tokens, headed, adapters=setup.adapters, checkpointing=setup.gradient_checkpointing
    )
    return _compute_seconds(sequences * one, setup.ranks, rates)


def forward_seconds(
    sizes: ModelSizes, gpus: float, rates: RatesConfig, *, sequences: float, tokens: float, headed: float
) -> float | None:
    """Return the seconds of forward passes alone: a reference policy's, or a prefill."""
    return _compute_seconds(sequences * forward_operations(sizes, tokens, headed), gpus, rates)


def _compute_seconds(operations: float, gpus: float, rates: RatesConfig) -> float | None:
    return operations / (gpus * rates.tflops * 1e12 * rates.learning_share) if rates.tflops else None


def network_bytes(sizes: ModelSizes, setup: FineTuningSetup, micro_batches: float, hosts: int) -> float:
    """Return what each host receives of the others in a step, of the learner's ranks (ZeRO: arXiv 1910.02054, §7).

    Of P parameters, T of them trained, with b bytes a number of the model's; NCCL's rings go in and out of a host once:

        no ZeRO   2·4·T a step                    ZeRO 2   b·T a micro-batch, b·T a step
        ZeRO 1    4·T a step, b·T a step          ZeRO 3   2·b·P + b·T a micro-batch
    """
    return _moved_bytes(sizes, setup, micro_batches) * (hosts - 1) / hosts


def _moved_bytes(sizes: ModelSizes, setup: FineTuningSetup, micro_batches: float) -> float:
    """Return the gradients and weights that all ranks together reduce and gather in a step, or offload and fetch."""
    trained, number = setup.adapters or sizes.parameters, setup.number
    whole = sizes.parameters + (setup.adapters or 0)
    return {
        0: 8.0 * trained,
        1: (4.0 + number) * trained,
        2: number * trained * (micro_batches + 1.0),
        3: number * (2.0 * whole + trained) * micro_batches,
    }[setup.zero_stage]


def offload_bytes(sizes: ModelSizes, setup: FineTuningSetup, micro_batches: float) -> float:
    """Return what a rank moves between GPU and host in a step, and AdamW reads and writes there.

    Of P parameters, T of them trained, over N ranks, with b bytes a number of the model's:

        ZeRO 1    4·T/N of gradients and b·T/N of new weights a step
        ZeRO 2    b·T/N of gradients a micro-batch, b·T/N of new weights a step
        ZeRO 3    2·b·P/N of weights and b·T/N of gradients a micro-batch
        AdamW     28·T/N a step: weights, gradients and two moments read, all but the gradients written, in float32
    """
    if not setup.offload:
        return 0.0
    trained = setup.adapters or sizes.parameters
    return (_moved_bytes(sizes, setup, micro_batches) + 28.0 * trained) / setup.ranks


# --- sampling ---


@dataclass(frozen=True)
class Actor:
    """An actor's engine, and what it is given to do."""

    vllm: bool
    gpus: float
    """A share of one where actors have it together."""
    responses: float
    """Of a step, or of the whole, on this actor."""
    together: float
    """Rows at most that are decoded together."""
    number: int
    """Bytes a number of the model's."""


def cache_rows(sizes: ModelSizes, lengths: Lengths, number: int, room: float, gpus: int) -> float:
    """Return how many responses' keys and values `room` bytes on each of an actor's GPUs hold."""
    return room * gpus / cache_bytes(sizes, lengths.sequence, number)


def decode_steps(actor: Actor, lengths: Lengths) -> tuple[float, float]:
    """Return (decode steps, rows on average).

    vLLM fills rows that end; the transformers engine's batch is as long as its longest response.
    """
    tokens = actor.responses * lengths.response
    together = min(actor.together, actor.responses)
    batches = -(-actor.responses // together)
    steps = max(tokens / together, lengths.longest) if actor.vllm else batches * lengths.longest
    return steps, tokens / steps


def step_seconds(sizes: ModelSizes, actor: Actor, rows: float, context: float, rates: RatesConfig) -> float | None:
    """Return the seconds of a decode step; None without `rates.bandwidth_gb_s`."""
    if not rates.bandwidth_gb_s:
        return None
    host = VLLM_STEP_S + VLLM_ROW_S * rows if actor.vllm else LAYER_STEP_S * sizes.layers + TRANSFORMERS_ROW_S * rows
    speed = actor.gpus * rates.bandwidth_gb_s * 1e9 * rates.bandwidth_share
    return host + decode_bytes(sizes, rows, context, actor.number) / speed


def sample_seconds(
    sizes: ModelSizes, actor: Actor, prompts: float, lengths: Lengths, rates: RatesConfig
) -> float | None:
    """Return the seconds in which an actor answers its `prompts`; None without a rate that it follows from."""
    if rates.sampling_tokens_s:
        return actor.responses * lengths.response / rates.sampling_tokens_s
    steps, rows = decode_steps(actor, lengths)
    one = step_seconds(sizes, actor, rows, lengths.prompt + lengths.response / 2, rates)
    prefill = forward_seconds(sizes, actor.gpus, rates, sequences=prompts, tokens=lengths.prompt, headed=1)
    return None if one is None or prefill is None else steps * one + prefill


def sync_seconds(handed: float, other_hosts: int, way: str, rates: RatesConfig) -> float | None:
    """Return the seconds in which `handed` bytes of weights are packed, sent and taken.

    `way`: `rollout.weight_transport`; other ways than by the host pack nothing there, and a broadcast reaches all hosts
    at once. None where there are other hosts and no `rates.network_gb_s`.
    """
    if other_hosts and not rates.network_gb_s:
        return None
    times = min(other_hosts, 1) if way == "broadcast" else other_hosts
    sent = times * handed / (rates.network_gb_s * 1e9) if rates.network_gb_s else 0.0
    return (handed / PACK_BYTES_S if way == "host" else 0.0) + sent + handed / TAKE_BYTES_S
