"""Weights on disk: safetensors, nothing else, so that loading never executes anything."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from playbill.errors import IntegrityError
from playbill.models.config import NetworkConfig
from playbill.models.network import Network


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
    """Return whether bfloat16 products beat float32 ones: on accelerators, and on processors with AMX.

    Not by timing, which would have two runs on one machine differ; and not by AVX512-BF16, which was measured to take
    twice as long as float32 on an Intel server.
    """
    return device.type != "cpu" or bool(torch.cpu._is_amx_tile_supported())
