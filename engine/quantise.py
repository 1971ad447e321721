"""Linear layers whose frozen weight is held in 4-bit NormalFloat, with exact gradients.

NF4 (Dettmers et al. 2023, "QLoRA", arXiv 2305.14314): blocks of 64 weights share one scale, each
weight is one of 16 quantiles of N(0, 1), the scales are quantised once more. The kernels come
from bitsandbytes. The layer is ours because bitsandbytes' own repacks itself for inference at the
first evaluation on some CPUs, after which training silently gets no gradients.
"""

import contextlib
import io
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

BLOCK_SIZE = 64


class _FrozenMatmul(torch.autograd.Function):
    """y = x W^T with W decoded when needed, in the forward and again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "NF4Linear") -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.dequantised(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.dequantised(gradient.dtype), None


class NF4Linear(nn.Module):
    """y = x W^T + b with W (D_out, D_in) in 4 bits, double quantised; frozen."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, was_transposed: bool = False
    ) -> None:
        """Quantise a weight.

        Args:
            weight: (D_out, D_in), any float type.
            bias: (D_out,) or None; kept as it is.
            was_transposed: whether the model's own layer holds it as (D_in, D_out).
        """
        super().__init__()
        self.was_transposed = was_transposed
        self.out_features, self.in_features = weight.shape
        # One block a row: the CPU kernel misreads scales where a block would straddle two rows.
        flat = weight.detach().float().reshape(-1)
        padding = -flat.numel() % BLOCK_SIZE
        self.codes, self.scales = _functional().quantize_4bit(
            nn.functional.pad(flat, (0, padding)).view(-1, BLOCK_SIZE),
            blocksize=BLOCK_SIZE,
            compress_statistics=True,
            quant_type="nf4",
        )
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Decode the weight.

        Args:
            dtype: wanted float type.

        Returns:
            The weight, (D_out, D_in).
        """
        self.scales.dtype = dtype  # the kernel decodes to this type
        blocks: Tensor = _functional().dequantize_4bit(self.codes, self.scales)
        num_weights = self.out_features * self.in_features
        return blocks.view(-1)[:num_weights].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer in the compute type that autocast asks for.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y: Tensor = _FrozenMatmul.apply(x, self)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def num_bytes(self) -> int:
        """Count the bytes of codes, scales and bias.

        Returns:
            Bytes.
        """
        nested = self.scales.state2
        tensors = [self.codes, self.scales.absmax, self.scales.offset]
        tensors += [nested.absmax, nested.code, self.scales.code]
        tensors += [] if self.bias is None else [self.bias]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def quantise_linear(module: nn.Module) -> NF4Linear:
    """Turn one linear layer into its 4-bit twin.

    Args:
        module: nn.Linear, or GPT-2's Conv1D whose weight lies the other way round.

    Returns:
        The frozen layer.
    """
    transposed = isinstance(module, Conv1D)
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    assert isinstance(weight, Tensor) and isinstance(module.bias, Tensor | None)
    return NF4Linear(weight, module.bias, was_transposed=transposed)


def dequantise_linear(layer: NF4Linear, dtype: torch.dtype) -> nn.Linear | Conv1D:
    """Turn a 4-bit layer into one of the model's own kind that computes the same.

    Args:
        layer: the frozen layer.
        dtype: type of the decoded weight.

    Returns:
        nn.Linear with weight (D_out, D_in), or GPT-2's Conv1D with (D_in, D_out).
    """
    weight = layer.dequantised(dtype)
    plain: nn.Linear | Conv1D
    if layer.was_transposed:
        plain = Conv1D(layer.out_features, layer.in_features)
        weight = weight.T.contiguous()
    else:
        has_bias = layer.bias is not None
        plain = nn.Linear(layer.in_features, layer.out_features, bias=has_bias, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
    return plain


def _functional() -> Any:
    # Importing bitsandbytes takes seconds and prints about an optional package: only when used.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        import bitsandbytes.functional  # noqa: PLC0415
    return bitsandbytes.functional
