"""What a run will cost and on what machine: the values that the plan page shows. Free of torch."""

from typing import Literal

from pydantic import Field

from templates.values import Value


class Hardware(Value):
    """One device as training finds it; speeds are measured, never looked up."""

    device: Literal["cpu", "cuda"]
    name: str
    num_cores: int = Field(ge=1, description="Cores this process may use.")
    memory_total_bytes: int = Field(ge=0)
    memory_available_bytes: int = Field(ge=0, description="Free for a new process now.")
    runtime_bytes: int = Field(
        ge=0, description="What interpreter and libraries take before any weight is loaded."
    )
    fp32_flops_per_second: float = Field(gt=0, description="Matrix product at 32 bits.")
    bf16_flops_per_second: float = Field(gt=0, description="Matrix product at 16 bits.")
    bandwidth_bytes_per_second: float = Field(gt=0, description="Copy: bytes read plus written.")
    busy_ratio: float = Field(
        default=1.0, ge=1, description="How many times slower other programs make it just now."
    )


class MemoryParts(Value):
    """Where the memory of a training step goes, at the widest micro-batch."""

    weights_bytes: int = Field(description="Frozen weights, in the plan's precision.")
    learned_bytes: int = Field(description="What learns, in fp32.")
    gradients_bytes: int = Field(
        description="One fp32 value for each that learns; LOMO: of one tensor."
    )
    optimizer_bytes: int = Field(description="AdamW's two fp32 moments; LOMO keeps none.")
    activations_bytes: int = Field(description="What the backward pass needs from the forward.")
    logits_bytes: int = Field(description="Scores over the vocabulary and their gradients.")
    runtime_bytes: int = Field(description="Interpreter and libraries.")
    stem_bytes: int = Field(
        default=0, description="What frozen lower blocks made of every example, kept in memory."
    )

    @property
    def total_bytes(self) -> int:
        """All parts together: the peak."""
        return int(sum(self.model_dump().values()))


class CostEstimate(Value):
    """What a plan will take, before anything is loaded."""

    num_parameters: int = Field(description="Base and method together.")
    num_trainable: int
    memory: MemoryParts
    memory_available_bytes: int = Field(description="What the machine has free.")
    adapter_bytes: int = Field(description="Size of what the run saves as its result.")
    adapter_servers: tuple[str, ...] = Field(
        default=(), description="Programs that load the published adapter unmerged."
    )
    num_examples: int = Field(description="Training examples after those left out.")
    longest_tokens: int = Field(description="Longest training example with its soft prompt.")
    epoch_tokens: int = Field(description="Tokens read in one pass, without padding.")
    epoch_supervised_tokens: int = Field(description="Tokens the loss sees in one pass.")
    num_steps: int = Field(description="Optimizer steps if patience does not end the run.")
    inference_overhead_ratio: float = Field(
        default=0.0, description="Extra work to answer one request, before any merging."
    )
    flops: float = Field(description="Arithmetic of all steps and evaluations.")
    stem_disk_bytes: int = Field(
        default=0, description="What frozen lower blocks made of every example, kept on disk."
    )
    stem_saved_flops: float = Field(
        default=0.0, description="Arithmetic left out because those blocks run once an example."
    )
    low_seconds: float = Field(description="The run on a machine with nothing else to do.")
    high_seconds: float = Field(description="The run on a busy machine.")
    blockers: tuple[str, ...] = Field(default=(), description="Why it would fail; empty: it fits.")
    warnings: tuple[str, ...] = Field(default=(), description="What to know before starting.")

    @property
    def trainable_ratio(self) -> float:
        """Share of all parameters that learns."""
        return self.num_trainable / self.num_parameters

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory the run holds at once."""
        return self.memory.total_bytes

    @property
    def fits(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.blockers
