"""One rank of preference learning: TRL's DPOTrainer on the tokens that were sampled, with SimPER beside DPO.

Three things are ours. Pairs come as the token ids that the policy sampled, not as text that is tokenised anew. A
micro-batch is packed without padding (`collate_pairs`; TRL 1.16 has switched its own padding-free mode off). And
SimPER's loss, which TRL does not have. Models, optimizers, ZeRO, LoRA, checkpoints and the log-probabilities of the
start are TRL's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from agapo.algorithm.preference import dpo_loss, simper_loss
from agapo.learner.trl.fine_tuning import FineTuning, plain_model, prepare, quieten
from agapo.learner.trl.packing import IGNORED, Example, collate, join, pack
from agapo.model.adapters import adapter_config
from agapo.model.loading import load_tokenizer
from agapo.recipe.trainer import PreferenceTrainingConfig

PAIRS = "pairs"
"""Folder in the data's, with the pairs as an Arrow data set: `prompt_ids`, `chosen_ids`, `rejected_ids`."""
ORDER = "order.npy"
"""Beside it: the indices of the pairs in the order of training, over all epochs."""

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "entropy": "train/entropy",
    "accuracy": "pairs/accuracy",
    "margin": "pairs/margin",
    "chosen": "pairs/chosen_logprob",
    "rejected": "pairs/rejected_logprob",
    "chosen_drift": "pairs/chosen_drift",
    "rejected_drift": "pairs/rejected_drift",
}
"""The trainer's name of each metric, and ours. Log-probabilities are in nats a token, drifts against the start."""


def make_preference_trainer(settings: FineTuning, callbacks: list[TrainerCallback]) -> Any:
    """Return this rank's trainer. Raises UserError, or what TRL raises, where the settings cannot work. Collective."""
    own = settings.training
    assert isinstance(own, PreferenceTrainingConfig)
    arguments = prepare(
        settings, DPOConfig, beta=own.beta, precompute_ref_log_probs=own.start_logprobs, max_length=None
    )
    tokenizer = load_tokenizer(settings.model_path)
    # Flash attention tells packed sequences apart only in a batch of one row, and elsewhere wide rows cost most.
    one_row = settings.model.attention == "flash_attention_2"
    trainer = PreferenceTrainer(
        loss=own.loss,
        model=plain_model(settings),
        # Not adapters of our own: TRL would take them for trained ones, and keep a copy as the reference.
        peft_config=adapter_config(own.lora) if own.lora else None,
        args=arguments,
        train_dataset=Dataset.load_from_disk(str(settings.data / PAIRS)),
        data_collator=partial(collate_pairs, pad_token_id=tokenizer.pad_token_id, one_row=one_row),  # pyright: ignore[reportArgumentType]
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    # After the start's log-probabilities were taken, once for each pair.
    assert isinstance(trainer.train_dataset, Dataset)
    trainer.train_dataset = trainer.train_dataset.select(np.load(settings.data / ORDER))
    quieten(trainer)
    return trainer


def save_pairs(folder: Path, pairs: Sequence[Mapping[str, Sequence[int]]], order: Sequence[int]) -> None:
    """Write the pairs (`prompt_ids`, `chosen_ids`, `rejected_ids`) and their order of training for the ranks.

    Where they are already, they stay; `write_pairs` removes the folder with the pairs that it replaces.
    """
    if (folder / ORDER).exists() and np.load(folder / ORDER).tolist() == list(order):
        return
    columns = {name: [list(pair[name]) for pair in pairs] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    disable_progress_bars()
    Dataset.from_dict(columns).save_to_disk(str(folder / PAIRS))
    # Last, and whole or not at all: where it is, the pairs are.
    unfinished = folder / f".{ORDER}"
    np.save(unfinished, np.asarray(order, dtype=np.int64))
    unfinished.replace(folder / ORDER)


def collate_pairs(pairs: Sequence[Mapping[str, Any]], *, pad_token_id: int, one_row: bool) -> dict[str, Tensor]:
    """Pack a micro-batch of N pairs into one row, or into rows as wide as its longest sequence.

    Returns `input_ids`, `labels` (-100 where not trained) and `position_ids` [R, L], the last restarting with each
    sequence; `sequence` [R, L], for each trained token the number of its response: i for the chosen one of pair i,
    N + i for the rejected one; `lengths` [2·N] tokens of the responses; and, where the pairs have them,
    `ref_chosen_logps` and `ref_rejected_logps` [N] in nats.
    """
    responses = [pair["chosen_ids"] for pair in pairs] + [pair["rejected_ids"] for pair in pairs]
    prompts = [pair["prompt_ids"] for pair in pairs] * 2
    examples = [
        Example([*prompt, *response], [0] * len(prompt) + [1] * len(response))
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    lengths = [len(example.token_ids) for example in examples]
    width = sum(lengths) if one_row else max(lengths)
    # Longest first leaves the least padding.
    longest_first = sorted(range(len(examples)), key=lambda index: (-lengths[index], index))
    rows = list(pack([(index, lengths[index]) for index in longest_first], row_tokens=width, open_rows=len(examples)))
    batch = collate([join([examples[index] for index in row]) for row in rows], pad_token_id=pad_token_id)
    owners = torch.zeros_like(batch["labels"])
    for row, indices in zip(owners, rows, strict=True):
        marks = list(chain.from_iterable([index] * lengths[index] for index in indices))
        row[: len(marks)] = torch.tensor(marks)
    batch["sequence"] = torch.where(batch["labels"] == IGNORED, IGNORED, owners)
    batch["lengths"] = torch.tensor([len(response) for response in responses])
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        if name in pairs[0]:
            batch[name] = torch.tensor([float(pair[name]) for pair in pairs])
    return batch


class PreferenceTrainer(DPOTrainer):
    """TRL's DPOTrainer over packed rows of sampled tokens. A step's loss is the mean over its pairs."""

    def __init__(self, *, loss: Literal["simper", "dpo"], **arguments: Any) -> None:
        # Before TRL's own, which takes the start's log-probabilities.
        self._loss = loss
        super().__init__(**arguments)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Leave the pairs as they are: TRL would tokenise text."""
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities [N] of chosen and rejected responses under the model as it is."""
        with torch.no_grad(), self.accelerator.autocast():
            logprobs, _ = response_logprobs(model, inputs)
        chosen, rejected = logprobs.chunk(2)
        return chosen, rejected

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Tensor:
        assert not return_outputs, "packed rows have no outputs to return"
        logprobs, entropy = response_logprobs(model, inputs)
        chosen, rejected = logprobs.chunk(2)
        chosen_lengths, rejected_lengths = inputs["lengths"].chunk(2)
        start = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]) if "ref_chosen_logps" in inputs else None
        if self._loss == "simper":
            losses = simper_loss(chosen, rejected, chosen_lengths, rejected_lengths)
            preferred = chosen.detach() / chosen_lengths - rejected.detach() / rejected_lengths
        else:
            assert start, "DPO needs the start's log-probabilities"
            losses = dpo_loss(chosen, rejected, *start, beta=self.beta)
            preferred = self.beta * ((chosen - start[0]) - (rejected - start[1])).detach()
        metrics = {
            "accuracy": (preferred > 0).float(),
            "margin": preferred,
            "chosen": chosen.detach() / chosen_lengths,
            "rejected": rejected.detach() / rejected_lengths,
            "entropy": entropy.detach().expand(1),
        }
        if start:
            metrics["chosen_drift"] = (chosen.detach() - start[0]) / chosen_lengths
            metrics["rejected_drift"] = (rejected.detach() - start[1]) / rejected_lengths
        for name, values in metrics.items():
            gathered: Any = self.accelerator.gather(values)
            self._metrics["train"][name].append(gathered.mean().item())
        return losses.mean()


def response_logprobs(model: Callable[..., Any], inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the log-probability [2·N] of each response of a packed micro-batch, and the mean entropy of its tokens.

    `inputs` as `collate_pairs` gives them, `model` with TRL's fused head.
    """
    # Without use_cache=False, packed rows are silently wrong in eval mode: the mask ignores position ids.
    outputs = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        labels=inputs["labels"],
        use_cache=False,
        fused_lm_head=True,
    )
    owner = inputs["sequence"][:, 1:]
    trained = owner != IGNORED
    logprobs = outputs.log_probs.float()
    sums = logprobs.new_zeros(len(inputs["lengths"])).index_add(0, owner[trained], logprobs[trained])
    entropy = logprobs.new_zeros(()) if outputs.entropy is None else outputs.entropy[trained].mean()
    return sums, entropy
