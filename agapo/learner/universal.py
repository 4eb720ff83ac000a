"""A checkpoint that some ranks wrote, made readable for another number of them: DeepSpeed's universal form.

    state/zero_pp_rank_0_…, zero_pp_rank_1_…  ──►  universal/zero/<parameter>/{fp32,exp_avg,exp_avg_sq}.pt

Each parameter's float32 copy and its optimizer's state are whole there, and each rank takes its share (Lian et al.,
arXiv 2406.18820). Ranks of ZeRO 1 and 2 read each other's; those of ZeRO 3 their own kind alone.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agapo.errors import UserError

UNIVERSAL = "universal"
"""Its folder, beside the shards', while it is read."""


@contextmanager
def universal_form(shards: Path) -> Iterator[str]:
    """Write what the ranks' files in `shards` hold beside them in the universal form; yield its folder's name.

    It takes 12 bytes a trained parameter on disk, and is gone afterwards. Raises UserError where it cannot be made.
    """
    folder = shards.parent / UNIVERSAL
    try:
        _convert(shards, folder)
        yield UNIVERSAL
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        (shards.parent / "latest_universal").unlink(missing_ok=True)


def _convert(shards: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    workers = min(4, os.cpu_count() or 1)
    # A process of its own: it sets up nothing of DeepSpeed here, and its memory goes back to the system.
    command = [
        *(sys.executable, "-W", "ignore", "-m", "deepspeed.checkpoint.ds_to_universal"),
        *("--input_folder", str(shards), "--output_folder", str(folder), "--inject_missing_state"),
        *("--num_extract_workers", str(workers), "--num_merge_workers", str(min(2, workers))),
    ]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise UserError(
            f"{shards}: could not be divided anew for another number of ranks ({reason}); go on with as many ranks as "
            "wrote it, or see whether the disk is full"
        )
