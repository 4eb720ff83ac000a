"""What people see of a run: its folder, metrics and samples, progress, and the report at the end.

    with RunDirectory.open(recipe, path) as run:                    whose folder, provenance, lock
        logger = MetricsLogger(run, recipe, wandb_id, run.resumed)  metrics.jsonl, rollouts.jsonl, W&B
        with StepProgress(recipe.steps) as progress:                the live line
            ...
        learning_curve(run.metrics, run.curve)                      the picture

Knows recipes and records, and nothing of models: it imports no torch, and W&B and matplotlib only when used.
"""

from agapo.tracking.curves import learning_curve
from agapo.tracking.files import read_json, write_json_atomic
from agapo.tracking.lineage import lineage_entry, lineage_of, lineage_table
from agapo.tracking.logger import MetricsLogger
from agapo.tracking.model_card import write_model_card
from agapo.tracking.ownership import is_finished, stored_fingerprint
from agapo.tracking.progress import StepProgress, make_console, say
from agapo.tracking.report import before_after_table, final_summary, thinking_table
from agapo.tracking.run_directory import RunDirectory
from agapo.tracking.timeline import Timeline

__all__ = [
    "MetricsLogger",
    "RunDirectory",
    "StepProgress",
    "Timeline",
    "before_after_table",
    "final_summary",
    "is_finished",
    "learning_curve",
    "lineage_entry",
    "lineage_of",
    "lineage_table",
    "make_console",
    "read_json",
    "say",
    "stored_fingerprint",
    "thinking_table",
    "write_json_atomic",
    "write_model_card",
]
