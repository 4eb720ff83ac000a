"""TRL's side: GRPOTrainer in one process, with transformers' `generate` (vLLM needs a GPU), set up for speed.

One forward and backward over the whole batch, no gradient checkpointing (TRL's default is True), no bf16 autocast
(TRL's default is True), no logging, no checkpoints. Phases are taken by overriding the trainer's own methods, and the
optimizer by the Trainer's callbacks around it.
"""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from agapo.model.loading import load_tokenizer
from agapo.recipe import RLRecipe
from agapo.resolve import resolve
from agapo.schema import Prompt
from agapo.stages.rl.metrics import Clock
from benchmarks.work import Run, Step, Stopwatch, Work


def run(work: Work) -> Run:
    """Run the steps and return their times."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as output:
        recipe, tokenizer = work.recipe(Path(output)), load_tokenizer(work.model)
        rows = [row(prompt, tokenizer) for batch in work.batches(recipe) for prompt in batch]
        trainer = TimedTrainer(
            model=work.model,
            reward_funcs=[resolve(recipe.reward.terms[0].function, key="reward")],
            args=_config(work, recipe, output),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.add_callback(_Times(trainer))
        trainer.train()
    return Run(ready_at=trainer.ready_at, steps=trainer.timed, settings=_settings(trainer, work))


def row(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """As text, in TRL's standard format: of chats it renders all of a run in one mode (`chat_template_kwargs`)."""
    about = {"mode": prompt.mode, "domain": prompt.domain, "language": prompt.language}
    text = tokenizer.apply_chat_template(
        [dict(message) for message in prompt.messages],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=prompt.mode == "reasoning",
    )
    return {**prompt.columns, **about, "prompt": text}


def _config(work: Work, recipe: RLRecipe, output: str) -> GRPOConfig:
    learner, rollout = recipe.learner, recipe.rollout
    quiet: dict[str, Any] = {
        "output_dir": output,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
    }
    optimizer: dict[str, Any] = {
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "adam_beta1": learner.betas[0],
        "adam_beta2": learner.betas[1],
        "adam_epsilon": learner.eps,
        "weight_decay": learner.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
    }
    return GRPOConfig(
        **quiet,
        **optimizer,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": recipe.model.dtype, "attn_implementation": recipe.model.attention},
        max_steps=work.steps,
        per_device_train_batch_size=work.responses,
        gradient_accumulation_steps=1,
        num_iterations=1,
        num_generations=work.group,
        pad_to_multiple_of=None,
        max_completion_length=work.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        beta=work.kl,
        shuffle_dataset=False,
        use_vllm=False,
        seed=recipe.run.seed,
    )


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer with a clock around its phases, and a record of each step."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.clock = Clock()
        self.timed: list[Step] = []
        self.ready_at, self.watch = 0.0, Stopwatch()
        self.lengths: list[int] = []
        self.prompt_ids: list[list[int]] = []
        super().__init__(*args, **kwargs)

    def _generate(self, prompts: list[Any]) -> Any:
        with self.clock.phase("generate"):
            result = super()._generate(prompts)
        self.lengths = [len(ids) for ids in result[1]]
        self.prompt_ids = [list(ids) for ids in result[0][:: self.num_generations]]
        return result

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("score"):
            return super()._calculate_rewards(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with self.clock.phase("rollout"):
            return super()._generate_and_score_completions(inputs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("forward"):
            return super().compute_loss(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.phase("training_step"):
            return super().training_step(*args, **kwargs)

    def note_step(self) -> None:
        """Close the step's record."""
        seconds, cpu_s = self.watch.lap()
        phases = exclusive_phases(self.clock.seconds, seconds)
        self.timed.append(Step(seconds, cpu_s, phases, self.lengths, self.prompt_ids, learned=len(self.lengths)))
        self.clock = Clock()


def exclusive_phases(measured: dict[str, float], step: float) -> dict[str, float]:
    """Return phases that do not overlap from the methods' times, of which some lie inside others."""
    known = {name: measured[name] for name in ("generate", "score", "forward", "optimizer")}
    prepare = measured["rollout"] - known["generate"] - known["score"]
    backward = measured["training_step"] - measured["rollout"] - known["forward"]
    phases = {**known, "prepare": prepare, "backward": backward}
    return {**phases, "other": step - sum(phases.values())}


class _Times(TrainerCallback):
    """Notes when training begins, when the optimizer runs, and when each step ends."""

    def __init__(self, trainer: TimedTrainer):
        self.trainer = trainer
        self.optimizer_began = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.ready_at, self.trainer.watch = time.time(), Stopwatch()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.optimizer_began = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.clock.seconds["optimizer"] = time.perf_counter() - self.optimizer_began

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.note_step()


def _settings(trainer: TimedTrainer, work: Work) -> dict[str, str]:
    args: Any = trainer.args
    model: Any = trainer.model
    shown = {
        "dtype": f"{str(model.dtype).removeprefix('torch.')}, {'bf16 autocast' if args.bf16 else 'no autocast'}",
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "temperature, top-p": f"{args.temperature:g}, {args.top_p:g}",
        "KL β": f"{trainer.beta:g}",
        "objective": f"GRPO, loss_type={args.loss_type}, scale_rewards={args.scale_rewards}",
        "updates a batch": args.num_iterations,
        "optimizer": f"AdamW ({getattr(args.optim, 'value', args.optim)}), betas "
        f"({args.adam_beta1:g}, {args.adam_beta2:g}), eps {args.adam_epsilon:g}, weight decay {args.weight_decay:g}",
        "learning rate": f"{args.learning_rate:g}, constant",
        "gradient clipping": f"{args.max_grad_norm:g}",
        "gradient checkpointing": args.gradient_checkpointing,
        "generation": f"transformers' generate, {args.generation_batch_size} rows, KV cache "
        f"({trainer.generation_config.cache_implementation or 'dynamic'}), use_vllm={args.use_vllm}",
        "learning": f"{args.per_device_train_batch_size} padded rows at once",
        "reward": "rewards.math_answer:score in the trainer's process",
        "processes": "1",
        "step": f"{work.prompts} prompts × {args.num_generations} responses, ≤ {args.max_completion_length} new tokens",
    }
    return {name: str(value) for name, value in shown.items()}
