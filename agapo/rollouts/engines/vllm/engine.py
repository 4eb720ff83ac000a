"""Sampling with vLLM's engine core, driven step by step.

Each response is a request of vLLM's own: its scheduler batches them continuously, and the prompt of a group is
computed once (prefix caching). What a response is depends on what was batched with it, so redone work gives valid
responses, not the same ones.

An update replaces the model's weights in place (`worker.py`), or with LoRA the adapter (`adapter.py`).

Not here: asynchronous scheduling (vLLM would be a step ahead of us, and a weight update must fall between two),
speculative decoding.
"""

import hashlib
import math
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from agapo.errors import UserError, first_line
from agapo.model.adapters import adapted_folder, adapter_layout
from agapo.model.loading import load_config, load_tokenizer, model_folder, parameter_names
from agapo.model.rope import extend_context
from agapo.model.transports import MeetingPlace
from agapo.model.weights import Weights, weights_did_not_arrive
from agapo.rollouts.actor import EngineSettings
from agapo.rollouts.engine import Piece, Request, ResponseId, SamplingParams, resumed
from agapo.rollouts.engines.endings import end_token_ids, not_finite, response_text
from agapo.rollouts.engines.vllm.adapter import AdapterSlot, adapter_arguments
from agapo.rollouts.engines.vllm.version import require_vllm
from agapo.schema import Segment

GIB = 1 << 30


def load_vllm(settings: EngineSettings) -> "VLLMEngine":
    """Load the model into vLLM, in this process. Raises UserError where vLLM is missing or cannot take the model."""
    require_vllm()
    _set_environment(settings)
    if settings.lora:
        settings = replace(settings, model_path=adapted_folder(settings.model_path, settings.dtype, settings.lora))
    from vllm import EngineArgs, LLMEngine  # pyright: ignore[reportAttributeAccessIssue]  not in the checked .venv

    try:
        engine = LLMEngine.from_engine_args(EngineArgs(**_arguments(settings)))
    except (ValueError, NotImplementedError) as error:
        reason = first_line(error)
        raise UserError(
            f"rollout.engine: vLLM cannot load {settings.model_path} ({reason}); mend that, or set "
            "rollout.engine=transformers"
        ) from error
    tokenizer = load_tokenizer(settings.model_path)
    ends = end_token_ids(_generation_config(model_folder(settings.model_path)), tokenizer)
    slot = AdapterSlot(engine, settings.lora, settings.model_path) if settings.lora else None
    return VLLMEngine(engine, tokenizer, ends, _names(settings), on_gpu=settings.device == "cuda", adapter=slot)


def _names(settings: EngineSettings) -> frozenset[str]:
    """Return the names of the parameters that are updated."""
    if settings.lora:
        return frozenset(adapter_layout(load_config(settings.model_path, settings.rope), settings.lora).names)
    return parameter_names(settings.model_path, settings.rope)


def _set_environment(settings: EngineSettings) -> None:
    """Say what vLLM reads from the environment, when it is imported and when its engine is made."""
    os.environ |= {
        # The engine core in this process: we take its steps, and Ray ends one process, not two.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    if settings.device == "cpu":
        os.environ |= {
            # Else it binds its threads to cores, those of two actors to the same.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # The sampler's compiled pieces take half a minute at the first token, and gain nothing here.
            "TORCH_COMPILE_DISABLE": "1",
        }
        torch.set_num_threads(settings.threads)


def _arguments(settings: EngineSettings) -> dict[str, Any]:
    """Return vLLM's `EngineArgs`."""
    on_gpu = settings.device == "cuda"
    memory = {"gpu_memory_utilization": settings.vllm.gpu_memory}
    cache_bytes = int(settings.vllm.cache_gib * GIB)
    return {
        "model": model_folder(settings.model_path),
        "dtype": settings.dtype,
        # As long as the model's context, or as the cache has room for.
        "max_model_len": -1,
        "max_num_seqs": settings.vllm.in_flight,
        "enable_prefix_caching": True,
        # Of what is sampled from: at the sampling temperature, as the learner computes them.
        "logprobs_mode": "processed_logprobs",
        # The model's own temperature and top-p are not wanted.
        "generation_config": "vllm",
        "async_scheduling": False,
        "disable_log_stats": True,
        "tensor_parallel_size": settings.vllm.tensor_parallel,
        "distributed_executor_backend": "mp" if settings.vllm.tensor_parallel > 1 else "uni",
        "worker_extension_cls": "agapo.rollouts.engines.vllm.worker.WeightReceiver",
        "enable_sleep_mode": on_gpu,
        "enforce_eager": not on_gpu,
        # Without a GPU requests have no seeds of their own, and two actors are not to draw the same.
        **(memory if on_gpu else {"kv_cache_memory_bytes": cache_bytes, "seed": secrets.randbits(31)}),
        **(adapter_arguments(settings.lora) if settings.lora else {}),
        **({"hf_overrides": partial(_stretched, rope=dict(settings.rope))} if settings.rope else {}),
    }


def _stretched(config: PretrainedConfig, rope: dict[str, Any]) -> PretrainedConfig:
    extend_context(config, rope)
    return config


def _generation_config(model_path: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(model_path)
    except OSError:
        return None


@dataclass
class _Response:
    """A response in flight."""

    request: Request
    params: SamplingParams
    segments: list[Segment] = field(default_factory=list)
    """Those of earlier weights."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def close_segment(self, version: int) -> None:
        """Make a segment of what the weights `version` sampled."""
        if self.tokens:
            self.segments.append(Segment(np.array(self.tokens), np.array(self.logprobs), weights_version=version))
        self.tokens, self.logprobs = [], []


class VLLMEngine:
    """Samples responses with vLLM."""

    repeatable = False

    def __init__(
        self,
        engine: Any,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: frozenset[int],
        names: frozenset[str],
        *,
        on_gpu: bool,
        adapter: AdapterSlot | None = None,
    ):
        """`engine`: vLLM's `LLMEngine`, with `WeightReceiver` in its workers; `names`: the parameters that are updated.

        They are the model's, or given `adapter`, which is then what is updated, the adapter's.
        """
        self.engine = engine
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.version = 0
        self._names = names
        self._on_gpu = on_gpu
        self._adapter = adapter
        self._responses: dict[str, _Response] = {}
        self._added = 0

    @property
    def busy(self) -> bool:
        """Whether responses are in flight."""
        return bool(self._responses)

    def add(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Hand requests to vLLM's scheduler; they join the batch as it has room."""
        for request in requests:
            name = str(self._added)
            self._added += 1
            self._responses[name] = _Response(request, params)
            ids = [*request.prompt_ids, *request.prefix_ids]
            adapter = {"lora_request": self._adapter.request} if self._adapter else {}
            self.engine.add_request(name, {"prompt_token_ids": ids}, self._vllm_params(request, params), **adapter)

    def _vllm_params(self, request: Request, params: SamplingParams) -> Any:
        from vllm import SamplingParams as VLLMSamplingParams  # pyright: ignore[reportAttributeAccessIssue]
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]

        return VLLMSamplingParams(
            temperature=params.temperature,
            top_p=params.top_p,
            max_tokens=request.max_new_tokens,
            # The sampled token's, and no others.
            logprobs=0,
            # With seeds, vLLM 0.32 on CPU fails where a prompt is prefilled in parts ("does not use offset").
            seed=_seed(request, params.seed) if self._on_gpu else None,
            stop=list(params.stop),
            # Text is only made for stop texts, which must see what our own text shows.
            detokenize=bool(params.stop),
            include_stop_str_in_output=bool(params.stop),
            skip_special_tokens=False,
            # Our end tokens, whatever vLLM takes for the model's.
            ignore_eos=True,
            stop_token_ids=sorted(self.end_ids),
            output_kind=RequestOutputKind.DELTA,
        )

    def step(self) -> list[Piece]:
        """Let vLLM make a step; return the responses that finished."""
        return [piece for output in self.engine.step() if (piece := self._take(output))]

    def _take(self, output: Any) -> Piece | None:
        """Note what a step made of a response; return it where it finished."""
        response, (made,) = self._responses[output.request_id], output.outputs
        response.tokens += made.token_ids
        response.logprobs += [
            table[token].logprob for token, table in zip(made.token_ids, made.logprobs or [], strict=True)
        ]
        if not made.finish_reason:
            return None
        del self._responses[output.request_id]
        return self._piece(response, "length" if made.finish_reason == "length" else "stop")

    def _piece(self, response: _Response, finish: Literal["stop", "length", "paused"]) -> Piece:
        response.close_segment(self.version)
        if not all(math.isfinite(value) for part in response.segments for value in part.logprobs.tolist()):
            raise not_finite(self.version)
        segments = (*response.request.prefix, *response.segments)
        tokens = [token for segment in segments for token in segment.token_ids.tolist()]
        return Piece(response.request.id, segments, response_text(self.tokenizer, self.end_ids, tokens), finish)

    def abort(self, ids: Collection[ResponseId]) -> list[Piece]:
        """Take these out of flight; return what there is of them."""
        wanted = set(ids)
        gone = {name: item for name, item in self._responses.items() if item.request.id in wanted}
        self.engine.abort_request(list(gone))
        self._responses = {name: item for name, item in self._responses.items() if name not in gone}
        return [self._piece(response, "paused") for response in gone.values()]

    def meet(self, meeting: MeetingPlace, member: int) -> None:
        """Meet the learner for broadcasts of weights: vLLM's workers do, from this member on."""
        self.engine.collective_rpc("meet", args=(meeting, member))

    def update_weights(self, weights: Weights, version: int) -> None:
        """Take the weights after `version` optimizer updates; what is in flight goes on with them."""
        # By our names, too: vLLM fuses parameters, and takes a fused one for loaded when a part of it was.
        wrong = self._names - set(weights.layout.names)
        if not wrong:
            wrong = set(self._replace_adapter(weights) if self._adapter else self._replace_weights(weights))
        if wrong:
            raise weights_did_not_arrive(version, sorted(wrong))
        self.version = version

    def _replace_weights(self, weights: Weights) -> list[str]:
        for response in self._responses.values():
            response.close_segment(self.version)
        # Cached keys and values are of the old weights: what is in flight is prefilled once more.
        if not self.engine.reset_prefix_cache(reset_running_requests=True):
            raise RuntimeError("vLLM did not empty its prefix cache; what it holds is of the old weights")
        found = self.engine.collective_rpc("take_weights", args=(weights,))
        return sorted(set().union(*found))

    def _replace_adapter(self, weights: Weights) -> list[str]:
        """A request keeps the adapter that it was added with: what is in flight is paused, and added anew."""
        assert self._adapter
        in_flight = {response.request.id: response for response in self._responses.values()}
        paused = self.abort(in_flight)
        wrong = self._adapter.replace(weights)
        for piece in paused:
            response = in_flight[piece.id]
            self.add([resumed(response.request, piece)], response.params)
        return wrong

    def sleep(self) -> None:
        """Offload the weights to host memory and drop the cache (on GPU)."""
        assert not self.busy
        if self._on_gpu:
            # Level 2 would drop the weights, and a wake without an update would sample from nothing.
            self.engine.sleep(level=1)

    def wake(self) -> None:
        """Bring the weights back, and room for a cache."""
        if self._on_gpu:
            self.engine.wake_up()


def _seed(request: Request, seed: int) -> int:
    """Return the seed of a response, 63 bits; of one that goes on another one, as its random numbers begin anew."""
    own = request.id
    name = f"{seed}|{own.prompt}|{own.visit}|{own.index}|{len(request.prefix_ids)}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
