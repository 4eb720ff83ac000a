"""How a rank, RL's or TRL's, is told which one it is and where the others are."""


def group_variables(rank: int, ranks: int, address: str, port: int) -> dict[str, str]:
    """Return the environment that torch, accelerate and DeepSpeed read.

    Ray shows a rank no other GPU than its own, which is its number 0.
    """
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
