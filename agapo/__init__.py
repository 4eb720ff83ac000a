"""agapo: post-training for language models (SFT, AGAPO reinforcement learning, preference learning).

Importing this package loads neither torch nor Ray, so that `agapo --help` and recipe checks are instant.
"""

__version__ = "0.1.0"
