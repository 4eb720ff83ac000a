"""DeepSpeed on a CPU without its compiled extension."""


def skip_compiled_extension() -> None:
    """Let DeepSpeed talk between CPU ranks through gloo; call before it sets up its communication.

    It would otherwise compile a shared-memory extension on first use, which needs a compiler, and takes a lock file
    that a killed process leaves behind: every later run then waits for ever. On GPUs nothing changes.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
