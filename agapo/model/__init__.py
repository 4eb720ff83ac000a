"""Models: loading, export, the tokenizer of the tiny model, weight buffers and token log-probabilities."""

import logging

# PEFT imports it where it is installed; on CPUs it then asks for a package of kernels that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
