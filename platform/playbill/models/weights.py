"""Weights on disk: safetensors, nothing else, so that loading never executes anything."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from playbill.errors import IntegrityError
from playbill.models.config import NetworkConfig
from playbill.models.network import Network

BFLOAT16_GAIN = 1.3
"""How much faster products in bfloat16 must be to be worth their rounding."""


def save_weights(network: Network, path: Path) -> None:
    """Write every parameter and statistic of `network` to one safetensors file."""
    save_tensors(network.state_dict(), path)


def load_network(config: NetworkConfig, path: Path) -> Network:
    """Build the network of `config` with the weights of `path`, ready for scoring.

    Raises:
        IntegrityError: The file is damaged, or it belongs to another configuration.
    """
    network = Network(config)
    tensors = load_tensors(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise IntegrityError(f"{path} does not fit the network configuration beside it: {reason}") from None
    return network.eval()


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors to a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, str(path))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file.

    Raises:
        IntegrityError: The file is missing or damaged.
    """
    try:
        found: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} cannot be read as safetensors: {error}") from None
    return found


def bfloat16_is_fast(device: torch.device) -> bool:
    """Return whether bfloat16 products beat float32 ones: on accelerators, and on processors where they do when timed.

    The instructions being there is not enough: on some virtual machines with AVX512-BF16 they take twice as long.
    """
    return device.type != "cpu" or _bfloat16_speed() > BFLOAT16_GAIN


@cache
def _bfloat16_speed() -> float:
    """Return how much faster this process multiplies in bfloat16 than in float32; the best of several tries of each."""
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return 0.0
    best = {}
    for kind in (torch.float32, torch.bfloat16):
        left, right = (torch.ones(512, 512, dtype=kind) for _ in range(2))
        best[kind] = min(_seconds(left, right) for _ in range(6))
    return best[torch.float32] / best[torch.bfloat16]


def _seconds(left: Tensor, right: Tensor) -> float:
    begun = time.perf_counter()
    torch.mm(left, right)
    return time.perf_counter() - begun
