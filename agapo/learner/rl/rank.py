"""One data-parallel rank: the policy under DeepSpeed, and the frozen reference policy.

With LoRA (`learner.lora`) the weights are frozen and adapters train, and the reference is the policy without them:
there is one model in memory. A checkpoint is then the adapters' alone.

Deliberately not here: Ray (`group.py` makes actors of this class), schedules, and anything about rewards.
"""

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agapo.algorithm.objective import policy_loss
from agapo.errors import UserError
from agapo.learner.background import BackgroundWriter
from agapo.learner.deepspeed_config import deepspeed_config, sharded_loading, skip_compiled_extension
from agapo.learner.on_disk import keep_on_disk
from agapo.learner.process_group import group_variables
from agapo.learner.rl.batching import Example, MicroBatch, MicroPlan, collate, needs_one_row, plan_ranks
from agapo.learner.rl.row_check import check_model, twin_of
from agapo.learner.rl.settings import TAG, LearnerSettings
from agapo.learner.rl.shared_rows import collate_shared, plan_shared
from agapo.learner.universal import UNIVERSAL
from agapo.model.adapters import adapters_off, add_adapters, load_trained, save_trained_alone
from agapo.model.loading import load_model
from agapo.model.logprobs import LogProbModel
from agapo.model.sequence_parallel import make_sequence_group
from agapo.model.transports import MeetingPlace, SharedBuffer, SharedWeights, broadcast_weights, meet, place
from agapo.model.weights import (
    Gather,
    PackedWeights,
    WeightLayout,
    empty_buffer,
    pack_into,
    pack_weights,
    take_part,
    trained_parameters,
    weight_layout,
    whole,
)
from agapo.recipe.lora import quantizes
from agapo.resolve import resolve


class LearnerRank:
    """The policy's share on one rank, and how it learns."""

    def __init__(self, settings: LearnerSettings, *, rank: int, ranks: int, address: str, port: int):
        """Join the process group at `address:port`, and load the policy.

        Collective: returns when all ranks are there.
        """
        self.settings, self.rank, self.ranks = settings, rank, ranks
        torch.set_num_threads(settings.threads)
        _join(rank, ranks, address, port, settings.device)
        import deepspeed

        self.deepspeed: Any = deepspeed
        if settings.learner.offload_folder:
            keep_on_disk(settings.learner.offload_folder)
        self.sequence_group = make_sequence_group(rank, ranks, settings.learner.sequence_parallel)
        if self._sharded:
            # The model is nowhere whole then.
            check_model(twin_of(settings), settings, self.sequence_group)
            model = self._load_model()
            self._stop_if_damaged(model)
        else:
            model = self._load_model()
            check_model(model, settings, self.sequence_group)
        if settings.learner.lora:
            add_adapters(model, settings.learner.lora, settings.seed)
        self.policy = model
        wrapped = LogProbModel(model, self.sequence_group)
        if settings.learner.lora:
            save_trained_alone(wrapped)
        self.engine, _, _, _ = self.deepspeed.initialize(
            model=wrapped,
            config=self._deepspeed_config(0.0 if self._clips_itself else settings.max_grad_norm),
            model_parameters=list(trained_parameters(model).values()),
            optimizer=self._optimizer,
        )
        self._writer = BackgroundWriter() if settings.background else None
        if self._writer:
            self.engine.checkpoint_engine = self._writer
        named = settings.objective.function
        self.own_loss = resolve(named, key="algorithm.objective") if named else None
        self.reference: nn.Module | None = None
        self._packed: Tensor | None = None
        self._shared: SharedBuffer | None = None

    def _stop_if_damaged(self, model: Any) -> None:
        """Raise UserError, on all ranks, where a share of the weights is no numbers."""
        damaged = torch.tensor(
            float(not all(item.ds_tensor.isfinite().all() for item in model.parameters())), device=self.settings.device
        )
        torch.distributed.all_reduce(damaged)
        if damaged:
            raise UserError("model.path: weights of the model are not numbers: they are damaged; give another model")

    def _load_model(self) -> Any:
        own = self.settings.model
        with sharded_loading(self._deepspeed_config(0.0)) if self._sharded else nullcontext():
            model = load_model(
                self.settings.model_path,
                dtype=own.dtype,
                attention=self.settings.attention,
                gradient_checkpointing=own.gradient_checkpointing,
                rope=own.rope_fields,
                mapped=self._sharded,
                quantized=quantizes(self.settings.learner.lora),
            )
        # Of a sharded model these are its buffers.
        nn.Module.to(model, self.settings.device)
        return model

    def load_reference(self) -> None:
        """Load the frozen policy that the KL pulls towards: the model that RL starts from.

        With adapters it is there already: the policy without them.
        """
        if self.settings.learner.lora:
            return
        reference = LogProbModel(self._load_model().eval().requires_grad_(False), self.sequence_group)
        if self._sharded:
            reference, _, _, _ = self.deepspeed.initialize(model=reference, config=self._deepspeed_config(0.0))
        elif self.settings.learner.offload:
            reference.to("cpu")
        self.reference = reference

    def _deepspeed_config(self, max_grad_norm: float) -> dict[str, Any]:
        own = self.settings
        return deepspeed_config(
            zero_stage=own.zero_stage,
            bfloat16=own.bfloat16,
            max_grad_norm=max_grad_norm,
            offload=own.learner.offload,
            pinned=own.device == "cuda" or own.learner.offload_folder is not None,
        )

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        own = self.settings.learner
        return torch.optim.AdamW(
            parameters,
            lr=own.learning_rate,
            betas=own.betas,
            eps=own.eps,
            weight_decay=own.weight_decay,
            # One kernel over all weights instead of several passes.
            fused=True,
        )

    @property
    def _sharded(self) -> bool:
        return self.settings.zero_stage == 3

    @property
    def _counts(self) -> bool:
        """Whether this rank's answers do: ranks that share rows all have the same ones, of which the first's count."""
        return not (self.sequence_group and self.sequence_group.rank)

    @property
    def _clips_itself(self) -> bool:
        # Without ZeRO (so in float32) DeepSpeed clips but does not tell the norm.
        return self.settings.zero_stage == 0

    def update(self, examples: Sequence[Example], *, denominator: float, learning_rate: float) -> dict[str, float]:
        """Make one optimizer update from the batch's examples (all ranks get all of them), and return sums.

        The sums are this rank's share; `ratio_max`, `grad_norm` and the like are made whole by the caller.
        Raises UserError when the loss is not a number, before any weight has changed. `seconds` has the phases of it.
        """
        started = time.monotonic()
        sums = self.accumulate(examples, denominator=denominator)
        accumulated = time.monotonic()
        sums["grad_norm"] = self.step(learning_rate)
        self.seconds = {"forward and backward": accumulated - started, "optimizer": time.monotonic() - accumulated}
        if self.settings.device == "cuda":
            sums["gpu_gib_max"] = torch.cuda.max_memory_allocated() / (1 << 30)
            torch.cuda.reset_peak_memory_stats()
        return sums

    def accumulate(self, examples: Sequence[Example], *, denominator: float) -> dict[str, float]:
        """Run forward and backward over this rank's micro-batches; gradients are summed over ranks in the last."""
        self.engine.train()
        totals: dict[str, Tensor] = {}
        plans = self._plans(examples)
        for number, plan in enumerate(plans):
            self.engine.set_gradient_accumulation_boundary(number == len(plans) - 1)
            micro = self._collate(examples, plan)
            loss, sums = self._loss(micro, denominator)
            if not self._counts:
                sums = {name: value if name.endswith("_max") else 0 * value for name, value in sums.items()}
            # DeepSpeed averages gradients over ranks; ours are shares of one sum.
            self.engine.backward(loss * self.ranks, scale_wrt_gas=False)
            _add(totals, sums)
        self._stop_if_not_finite(totals["loss"])
        return {name: float(value) for name, value in totals.items()}

    def _loss(self, micro: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs, entropy = self._logprobs(self.engine, micro, entropy=True)
        loss, sums = policy_loss(logprobs, micro.tokens, self.settings.objective, denominator, self.own_loss)
        return loss, sums | {"loss": loss.detach(), "entropy": (entropy * micro.tokens.mask).sum()}

    def _logprobs(self, model: Any, micro: MicroBatch, *, entropy: bool) -> tuple[Tensor, Tensor]:
        return model(
            micro.input_ids,
            micro.position_ids,
            micro.attention_mask,
            micro.predictors,
            micro.targets,
            self.settings.temperature,
            entropy,
            micro.shared_prompts,
        )

    def _stop_if_not_finite(self, loss: Tensor) -> None:
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        if not torch.isfinite(total):
            raise UserError(
                f"the loss became {float(total)}; lower learner.learning_rate or learner.max_grad_norm, "
                "and run again to go on from the last checkpoint"
            )

    def step(self, learning_rate: float) -> float:
        """Apply the accumulated gradients; return their norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._clips_itself:
            norm = float(nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm))
            _require_finite(norm)
            self.engine.step()
            return norm
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm() or 0.0)
        _require_finite(norm)
        return norm

    @torch.no_grad()
    def reference_logprobs(self, examples: Sequence[Example]) -> dict[int, np.ndarray]:
        """Return log π_ref [T] of this rank's share of the examples, by index."""
        if self.settings.learner.lora:
            self.engine.eval()
            with adapters_off(self.policy):
                return dict(self._share_logprobs(self.engine, examples))
        if self.reference is None:
            raise ValueError("load_reference() was not called")
        with self._reference_at_hand(self.reference) as reference:
            return dict(self._share_logprobs(reference, examples))

    @contextmanager
    def _reference_at_hand(self, reference: nn.Module) -> Iterator[nn.Module]:
        """Have the reference where it computes; offloaded, and not in shards, it comes and goes whole."""
        if self._sharded or not self.settings.learner.offload:
            yield reference
            return
        reference.to(self.settings.device)
        try:
            yield reference
        finally:
            reference.to("cpu")
            if self.settings.device == "cuda":
                torch.cuda.empty_cache()

    def _share_logprobs(self, model: Any, examples: Sequence[Example]) -> Iterator[tuple[int, np.ndarray]]:
        for plan in self._plans(examples):
            micro = self._collate(examples, plan)
            logprobs, _ = self._logprobs(model, micro, entropy=False)
            if micro.dummy or not self._counts:
                continue
            counts = [len(examples[index].token_ids) for index in micro.examples]
            pieces = logprobs.float().cpu().split(counts)
            yield from zip(micro.examples, (piece.numpy() for piece in pieces), strict=True)

    def _plans(self, examples: Sequence[Example]) -> list[MicroPlan]:
        own = self.settings.learner
        if self.settings.shares_prompts:
            return plan_shared(examples, ranks=self.ranks, budget=own.micro_batch_tokens)[self.rank]
        lengths = [item.length for item in examples]
        one_row = needs_one_row(self.settings.model.attention)
        together, layout = own.sequence_parallel, own.layout
        budget, groups = own.micro_batch_tokens * together, self.ranks // together
        plans = plan_ranks(lengths, ranks=groups, budget=budget, layout=layout, one_row=one_row)
        return plans[self.rank // together]

    def _collate(self, examples: Sequence[Example], plan: MicroPlan) -> MicroBatch:
        if self.settings.shares_prompts:
            return collate_shared(examples, plan, self.settings.device)
        return collate(examples, plan, self.settings.learner.layout, self.settings.device)

    def weights(self) -> PackedWeights | None:
        """Return the policy's weights, or its adapters, on rank 0, None elsewhere. Collective under ZeRO-3.

        The next call writes over their buffer.
        """
        layout = self.layout
        if self.rank == 0:
            if self._packed is None:
                self._packed = empty_buffer(layout, pinned=self.settings.device == "cuda")
            return pack_weights(self.policy, layout, self._gather, self._packed)
        self._take_part()
        return None

    def shared_weights(self) -> SharedWeights:
        """Return the policy's weights, or its adapters, in a buffer of this rank's GPU. Collective under ZeRO-3.

        The next call writes over it.
        """
        device, layout = self.settings.device, self.layout
        if self._shared is None:
            self._shared = SharedBuffer(layout, device)
        sums = pack_into(self._shared.flat, self.policy, layout, self._gather)
        return SharedWeights({place(device): self._shared.handle()}, layout, tuple(sums.tolist()))

    def meet_engines(self, meeting: MeetingPlace) -> None:
        """Meet the engines for broadcasts, as the first rank; others have nothing to do."""
        if self.rank == 0:
            meet(meeting, 0, self.settings.device)

    def broadcast_weights(self) -> None:
        """Send the weights to the engines that were met. Collective under ZeRO-3."""
        if self.rank == 0:
            broadcast_weights(self.policy, self.layout, self._gather)
        else:
            self._take_part()

    def rest(self) -> None:
        """Give back what the allocator keeps for later: another process on the GPU is to work now."""
        if self.settings.device == "cuda":
            torch.cuda.empty_cache()

    @property
    def layout(self) -> WeightLayout:
        """Of the weights that travel."""
        return weight_layout(self.policy, getattr(torch, self.settings.model.dtype))

    def _take_part(self) -> None:
        if self._sharded:
            take_part(self.policy, self.layout, self._gather)

    @property
    def _gather(self) -> Gather:
        return self._gathered if self._sharded else whole

    def _gathered(self, parameter: nn.Parameter) -> AbstractContextManager[object]:
        return self.deepspeed.zero.GatheredParameters([parameter])

    def save(self, directory: Path) -> None:
        """Write weights, or adapters, and optimizer state below `directory`, or begin to. Collective."""
        self.engine.save_checkpoint(str(directory), tag=TAG, exclude_frozen_parameters=True)

    def written(self, *, wait: bool) -> bool:
        """Return whether what `save` was to write is on the disk; with `wait`, once it is. Raises UserError."""
        return self._writer is None or self._writer.written(wait=wait)

    def load(self, directory: Path, tag: str = TAG) -> None:
        """Take weights and optimizer state from `directory`: shards, or their universal form. Collective."""
        # All that is trained must be there, and nothing else; frozen weights are not.
        load = load_trained if self.settings.learner.lora else None
        # Read by `load_checkpoint` alone.
        self.engine._config.load_universal_checkpoint = tag == UNIVERSAL
        path, _ = self.engine.load_checkpoint(str(directory), tag=tag, custom_load_fn=load)
        self.engine._config.load_universal_checkpoint = False
        if path is None:
            raise UserError(f"{directory}: holds no learner state; delete it to resume from the checkpoint before it")


def _join(rank: int, ranks: int, address: str, port: int, device: str) -> None:
    """Join the process group, with the environment that DeepSpeed reads."""
    os.environ |= group_variables(rank, ranks, address, port)
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    skip_compiled_extension()
    deepspeed.init_distributed(
        dist_backend="gloo" if device == "cpu" else "nccl",
        auto_mpi_discovery=False,
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=ranks,
    )


def _require_finite(norm: float) -> None:
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient's norm became {norm}; lower learner.learning_rate, "
            "and run again to go on from the last checkpoint"
        )


def _add(totals: dict[str, Tensor], sums: dict[str, Tensor]) -> None:
    for name, value in sums.items():
        if name not in totals:
            totals[name] = value
        else:
            totals[name] = torch.maximum(totals[name], value) if name.endswith("_max") else totals[name] + value
