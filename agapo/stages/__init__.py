"""The stages, a room each; `running` holds what several of them need."""

import os

import torch

if not torch.cuda.is_available():
    # DeepSpeed, which transformers and TRL import, warns on every start where it has to find this out.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
