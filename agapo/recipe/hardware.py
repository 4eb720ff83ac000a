"""A described cluster, for `agapo plan`: hosts of one kind, and what their GPUs do a second (recipes/cluster/)."""

from pydantic import Field

from agapo.recipe.section import Strict


class RatesConfig(Strict):
    """What the hardware does a second. What has no value here and no default is not estimated."""

    tflops: float | None = Field(default=None, gt=0)
    """Dense bfloat16 operations of a GPU at its peak, in 10¹² a second (data sheets; an H100 SXM's are 989)."""
    learning_share: float = Field(default=0.3, gt=0, le=1)
    """Share of that peak which learning reaches (its model FLOPs utilisation, where nothing is computed twice; what
    gradient checkpointing repeats counts as work)."""
    bandwidth_gb_s: float | None = Field(default=None, gt=0)
    """Of a GPU's memory, in 10⁹ bytes a second (an H100 SXM's: 3350), from which the speed of decoding follows."""
    bandwidth_share: float = Field(default=0.6, gt=0, le=1)
    """Share of that bandwidth which decoding reaches."""
    sampling_tokens_s: float | None = Field(default=None, gt=0)
    """Tokens a second that an actor samples, where that was measured: instead of the estimate from the bandwidth."""
    offload_gb_s: float = Field(default=20, gt=0)
    """What a rank moves between its GPU and the host's memory, or works on there, in 10⁹ bytes a second."""
    network_gb_s: float | None = Field(default=None, gt=0)
    """Between two hosts, in 10⁹ bytes a second and direction (eight links of 400 Gb/s: 400)."""


class DescribedCluster(Strict):
    """Hosts that are all alike."""

    hosts: int = Field(default=1, ge=1)
    gpus_per_host: int = Field(ge=1)
    gpu_gib: float = Field(gt=0)
    """Memory of a GPU that a process can have (of a card of 80 GB, 79 GiB)."""
    host_gib: float = Field(gt=0)
    """Memory of a host."""
    cpus_per_host: int = Field(ge=1)
    """CPU cores of a host."""
    rates: RatesConfig = RatesConfig()

    @property
    def gpus(self) -> int:
        """GPUs of all hosts."""
        return self.hosts * self.gpus_per_host

    @property
    def text(self) -> str:
        """In words."""
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts, each"
        gpus = "1 GPU" if self.gpus_per_host == 1 else f"{self.gpus_per_host} GPUs"
        memory = f"{self.host_gib:g} GiB of memory"
        return f"{hosts} with {gpus} of {self.gpu_gib:g} GiB, {memory} and {self.cpus_per_host} cores"
