"""What this processor does fast, and the settings of PyTorch and of the C library that training and evaluation run under."""

import contextlib
import ctypes
import functools
import sys
import warnings
from collections.abc import Iterator

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h


@functools.cache
def chosen_forms() -> dict[str, bool]:
    """Which forms this processor gets, by what it has: {form: bool}. The caller's ATEN_CPU_CAPABILITY is obeyed.

    bfloat16: it has products in 16 bits; elsewhere they are emulated, many times slower than float32.
    onednn_products: float32 by oneDNN (`fast_matmul`). parts: predictions for a few users at a time (`in_parts`), which
    pays with AVX-512 and costs a quarter of the rate on processors with AVX2 alone. fused_gelu: see `FeedForward`.
    """
    found, wide = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability() == "AVX512"
    bfloat16 = bool(wide and found.get("avx512_bf16"))
    return {
        "bfloat16": bfloat16, "onednn_products": bfloat16 and not found.get("amx_bf16"), "parts": wide,
        "fused_gelu": hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    }


def warn_of_emulated_bfloat16(precision: str, device: torch.device) -> None:
    """Says what bfloat16 costs on a CPU that has to emulate it."""
    if precision == "bfloat16" and device.type == "cpu" and not chosen_forms()["bfloat16"]:
        warnings.warn(
            "This processor has no products in bfloat16 and emulates them, so that everything takes many times as long "
            "as in float32; take precision='float32'.", stacklevel=4     # past the decorator of its caller
        )


@contextlib.contextmanager
def fast_matmul() -> Iterator[None]:
    """float32 products by oneDNN on x86 processors with AVX-512 but without AMX, about twice as fast there on AMD.

    PyTorch knows this as leave to compute in bfloat16, which oneDNN has no use for without AMX: it computes in float32.
    Where there is AMX the products would lose digits, so there, as on other processors, all stays as it is.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if chosen_forms()["onednn_products"]:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Lets the C library's malloc keep what is freed, and gives it back at the end.

    Otherwise large activations go back to the system and their successors get fresh pages, each cleared at its first
    touch, which took up to nearly half of the training's time at L = 50 and batch 512. The price is memory: 3 to 4 GB
    there instead of 2, and more the longer it is kept. Nothing happens where the library is not glibc.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)                                               # no mapping of its own for a large block
    library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)                                 # bytes at the heap's end
    try:
        yield
    finally:
        # Once set, the thresholds no longer adapt: they end where glibc's own adapting ends for large tensors.
        library.mallopt(M_MMAP_MAX, 65_536)
        library.mallopt(M_MMAP_THRESHOLD, 2**25)
        library.mallopt(M_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)
