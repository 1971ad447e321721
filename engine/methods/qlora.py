"""QLoRA: LoRA over a base whose linear layers are held in 4 bits.

y = dequant(W_nf4) x + (alpha / R) B A x: NF4 blocks of 64 with double quantisation, computed in
bf16. About a quarter of the base's 16-bit memory, at the price of decoding weights at every use.
Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.
"""

from dataclasses import replace

from engine.methods import lora

Options = lora.Options

SPEC = replace(
    lora.SPEC,
    name="qlora",
    title="QLoRA",
    summary="LoRA over a base held in 4 bits: for models that would not fit otherwise.",
    paper="Dettmers et al. 2023, arXiv 2305.14314",
    when_to_choose="When LoRA does not fit into memory. The base is held in a quarter of the "
    "space, so training is slower and answers may be a little less exact.",
    quality_place=3,
    precisions=("nf4",),
    import_peft=None,
)
