"""agapo's side: the RL stage's real system (Ray actors, verifier workers, a DeepSpeed rank), as `make rl` runs it."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agapo.recipe import RLRecipe
from agapo.schema import Batch
from agapo.stages.rl.loop import RLLoop
from agapo.stages.rl.metrics import Clock, Collected
from agapo.stages.rl.run import build_rl
from agapo.tracking import RunDirectory
from benchmarks.work import RECIPE, Run, Step, Stopwatch, Work

PHASES = ("generate", "score", "learn", "sync")


def run(work: Work) -> Run:
    """Run the steps and return their times."""
    with tempfile.TemporaryDirectory() as output:
        recipe = work.recipe(Path(output))
        with RunDirectory.open(recipe, RECIPE) as directory, ExitStack() as stack:
            loop = TimedLoop(**vars(build_rl(recipe, directory, work.model, stack)))
            loop.train()
            return Run(ready_at=loop.ready_at, steps=loop.timed, settings=_settings(recipe, work))


@dataclass
class TimedLoop(RLLoop):
    """The RL loop without evaluation and checkpoints, which TRL's side has not either; a record of each step."""

    timed: list[Step] = field(default_factory=list)
    ready_at: float = 0.0
    watch: Stopwatch = field(default_factory=Stopwatch)

    def begin(self) -> None:
        """Measure nothing beforehand."""
        self.ready_at, self.watch = time.time(), Stopwatch()

    def save_now_and_then(self) -> None:
        """Save nothing."""

    def record(self, collected: Collected, batch: Batch, sums: list[dict[str, float]], clock: Clock) -> None:
        """Write down the step as always, then note its time."""
        super().record(collected, batch, sums, clock)
        seconds, cpu_s = self.watch.lap()
        phases = {name: clock.seconds.get(name, 0.0) for name in PHASES}
        phases["other"] = seconds - sum(phases.values())
        self.timed.append(
            Step(
                seconds=seconds,
                cpu_s=cpu_s,
                phases=phases,
                lengths=[len(r.token_ids) for group in collected.groups for r in group.responses],
                prompt_ids=[list(group.prompt_ids) for group in collected.groups],
                learned=sum(int(item["responses"]) for item in sums),
            )
        )


def _settings(recipe: RLRecipe, work: Work) -> dict[str, str]:
    rollout, learner, algorithm = recipe.rollout, recipe.learner, recipe.algorithm
    shared: dict[str, Any] = {
        "dtype": f"{recipe.model.dtype}, no autocast",
        "attention": f"{recipe.model.attention} (decoding: agapo's, on SDPA)",
        "threads": f"{rollout.threads} each of {rollout.actors} rollout actors, then {learner.threads} of the learner",
        "temperature, top-p": f"{rollout.temperature:g}, {rollout.top_p:g}",
        "KL β": f"{algorithm.kl.coefficient:g}",
        "objective": f"{algorithm.preset} ({algorithm.aggregation}), all-correct groups kept, no refill",
        "updates a batch": algorithm.updates_per_batch,
        "optimizer": f"AdamW (DeepSpeed, ZeRO-{learner.zero_stage}, torch_adam), betas {learner.betas}, eps "
        f"{learner.eps:g}, weight decay {learner.weight_decay:g}",
        "learning rate": f"{learner.learning_rate:g}, {learner.schedule}",
        "gradient clipping": f"{recipe.max_grad_norm:g}",
        "gradient checkpointing": recipe.model.gradient_checkpointing,
        "generation": f"agapo's engine, chunks of {rollout.chunk_prompts * rollout.group_size} rows, finished rows "
        "dropped, one prefill a group",
        "learning": f"{learner.layout} rows, ≤ {learner.micro_batch_tokens} tokens a micro-batch",
        "reward": f"{recipe.reward.terms[0].function} in {recipe.reward.workers} verifier processes",
        "processes": f"driver, {rollout.actors} actors, {learner.ranks} rank, {recipe.reward.workers} verifiers, Ray",
        "step": f"{work.prompts} prompts × {work.group} responses, ≤ {rollout.max_new_tokens} new tokens",
    }
    return {name: str(value) for name, value in shared.items()}
