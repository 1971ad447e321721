"""QLoRA: LoRA over a base whose linear layers are held in 4 or 8 bits.

y = dequant(W) x + (alpha / R) B A x, computed in bf16. W is held as NF4 blocks of 64 with double
quantisation, about a quarter of the base's 16-bit memory, or as 8-bit rows, about half of it with a
tenth of the error; weights are decoded at every use. The paper's paged optimizer is for GPUs.
Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.
Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339.
"""

from dataclasses import replace

from engine.methods import lora
from engine.optimizers import PAGED_ADAMW

Options = lora.Options

SPEC = replace(
    lora.SPEC,
    name="qlora",
    title="QLoRA",
    summary="LoRA over a base held in 4 or 8 bits: for models that would not fit otherwise.",
    paper="Dettmers et al. 2023, arXiv 2305.14314",
    when_to_choose="When LoRA does not fit into memory. The base is held in a quarter of the "
    "space, or in half of it, so training is slower and answers may be a little less exact.",
    quality_place=3,
    precisions=("nf4", "int8"),
    optimizer=PAGED_ADAMW,
    import_peft=None,
)
