"""Linear layers whose frozen weight is held in 8 or 4 bits, with exact gradients.

int8 (Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339): every row of the weight shares one
scale, max |w| / 127, and each weight is a whole number of scales.

NF4 (Dettmers et al. 2023, "QLoRA", arXiv 2305.14314): blocks of 64 weights share one scale, each
weight is one of 16 quantiles of N(0, 1), the scales are quantised once more. The kernels come
from bitsandbytes. The layers are ours because bitsandbytes' own repack themselves for inference at
the first evaluation on some CPUs, after which training silently gets no gradients.
"""

import contextlib
import io
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.plan import Precision

BLOCK_SIZE = 64
_LARGEST_INT8 = 127


class _FrozenMatmul(torch.autograd.Function):
    """y = x W^T with W decoded when needed, in the forward and again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "QuantisedLinear") -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return ctx.layer.product_back(gradient), None


class QuantisedLinear(nn.Module):
    """y = x W^T + b with W (D_out, D_in) held as codes and scales, which are frozen.

    Attributes:
        codes: what stands for the weights.
        scales: what the codes are multiples of.
    """

    codes: Tensor
    scales: Any

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
        self.quantise(weight.detach().float())
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @abstractmethod
    def quantise(self, weight: Tensor) -> None:
        """Hold another weight, in new codes and scales; the old ones may be another layer's too.

        Args:
            weight: (D_out, D_in), fp32.
        """

    @abstractmethod
    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Decode the weight.

        Args:
            dtype: wanted float type.

        Returns:
            The weight, (D_out, D_in).
        """

    @abstractmethod
    def num_bytes(self) -> int:
        """Count the bytes of codes, scales and bias.

        Returns:
            Bytes.
        """

    def product(self, x: Tensor) -> Tensor:
        """Multiply with the decoded weight.

        Args:
            x: (..., D_in).

        Returns:
            x W^T, (..., D_out).
        """
        return nn.functional.linear(x, self.dequantised(x.dtype))

    def product_back(self, gradient: Tensor) -> Tensor:
        """Multiply with the decoded weight the other way round.

        Args:
            gradient: (..., D_out).

        Returns:
            gradient W, (..., D_in).
        """
        return gradient @ self.dequantised(gradient.dtype)

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


class Int8Linear(QuantisedLinear):
    """A weight in 8 bits, one fp32 scale a row.

    y = s * (C x) with the codes C cast to the compute type, which holds them exactly, and s (D_out)
    their scales. The paper rounds x to 8 bits as well, and keeps the columns of x with outliers
    apart so that this does no harm: `reference_quantisers.int8_product` shows it. Here x is never
    rounded, so there is nothing to keep apart: the error is that of the weight alone, what one
    token gives depends on no other token's outliers, and a merged model computes the same. Price:
    where a processor or GPU multiplies in 8 bits, this is no faster than 16 bits.
    """

    scales: Tensor

    def quantise(self, weight: Tensor) -> None:
        """Hold another weight.

        Args:
            weight: (D_out, D_in), fp32.
        """
        largest = weight.abs().amax(dim=1, keepdim=True)
        self.scales = torch.where(largest == 0, 1.0, largest / _LARGEST_INT8)  # (D_out, 1)
        self.codes = (weight / self.scales).round_().to(torch.int8)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Decode the weight, rounded once.

        Args:
            dtype: wanted float type.

        Returns:
            The weight, (D_out, D_in).
        """
        return (self.codes * self.scales).to(dtype)

    def product(self, x: Tensor) -> Tensor:
        """Multiply with codes, then with scales.

        Args:
            x: (..., D_in).

        Returns:
            x W^T, (..., D_out).
        """
        return nn.functional.linear(x, self.codes.to(x.dtype)).mul_(self.scales.view(-1))

    def product_back(self, gradient: Tensor) -> Tensor:
        """Multiply with scales, then with codes.

        Args:
            gradient: (..., D_out).

        Returns:
            gradient W, (..., D_in).
        """
        scaled = (gradient * self.scales.view(-1)).to(gradient.dtype)
        return scaled @ self.codes.to(gradient.dtype)

    def num_bytes(self) -> int:
        """Count the bytes of codes, scales and bias.

        Returns:
            Bytes.
        """
        tensors = [self.codes, self.scales] + ([] if self.bias is None else [self.bias])
        return sum(tensor.nbytes for tensor in tensors)


class NF4Linear(QuantisedLinear):
    """A weight in 4 bits, double quantised."""

    def quantise(self, weight: Tensor) -> None:
        """Hold another weight.

        Args:
            weight: (D_out, D_in), fp32.
        """
        # One block a row: the CPU kernel misreads scales where a block would straddle two rows.
        flat = weight.reshape(-1)
        padding = -flat.numel() % BLOCK_SIZE
        self.codes, self.scales = _functional().quantize_4bit(
            nn.functional.pad(flat, (0, padding)).view(-1, BLOCK_SIZE),
            blocksize=BLOCK_SIZE,
            compress_statistics=True,
            quant_type="nf4",
        )

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


KINDS: dict[Precision, type[QuantisedLinear]] = {"int8": Int8Linear, "nf4": NF4Linear}


def quantise_linear(module: nn.Module, precision: Precision) -> QuantisedLinear:
    """Turn one linear layer into its twin in fewer bits.

    Args:
        module: nn.Linear, or GPT-2's Conv1D whose weight lies the other way round.
        precision: one of `KINDS`.

    Returns:
        The frozen layer.
    """
    transposed = isinstance(module, Conv1D)
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    assert isinstance(weight, Tensor) and isinstance(module.bias, Tensor | None)
    return KINDS[precision](weight, module.bias, was_transposed=transposed)


def dequantise_linear(layer: QuantisedLinear, dtype: torch.dtype) -> nn.Linear | Conv1D:
    """Turn a quantised layer into one of the model's own kind that computes the same.

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
