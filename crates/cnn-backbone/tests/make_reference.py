#!/usr/bin/env python3
"""Writes reference.safetensors: what torchvision's own ResNet code gives for weights and images that the test makes too.

    python3 make_reference.py            # needs torch, torchvision, numpy, safetensors

Weights are no file: each is a function of its tensor's place among the sorted names and of its own place (see `numbers`,
and the function of the same name in cnn_backbone.rs). Two networks with the blocks of ResNet-18 and of WideResNet-50-2 but
fewer of them, in evaluation and in training mode. Of each map every 13th number is kept.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

STRIDE = 13


def numbers(tensor: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), the same in every language: integers modulo 2^32, then an exact division."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((tensor * 2654435769 + 12345) % 2**32)
    h ^= h >> np.uint32(15)
    h *= np.uint32(2246822519)
    h ^= h >> np.uint32(13)
    return ((h >> np.uint32(8)).astype(np.float32) / np.float32(2**24)).astype(np.float32)


def fill(network: ResNet) -> None:
    state = network.state_dict()
    names = sorted(n for n in state if not n.startswith("fc.") and not n.endswith("num_batches_tracked"))
    for place, name in enumerate(names):
        shape = tuple(state[name].shape)
        u = numbers(place, int(np.prod(shape))).reshape(shape)
        if len(shape) == 4:
            fan_in = np.float32(shape[1] * shape[2] * shape[3])
            u = (u - np.float32(0.5)) * np.float32(4) / np.sqrt(fan_in)
        elif name.endswith("running_var") or name.endswith("weight"):
            u = u + np.float32(0.5)
        else:
            u = u - np.float32(0.5)
        state[name].copy_(torch.from_numpy(u.astype(np.float32)))
    network.load_state_dict(state)


def stages(network: ResNet, images: torch.Tensor) -> list[torch.Tensor]:
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def main() -> None:
    out = {}
    networks = {
        "basic": ResNet(BasicBlock, [2, 1, 1, 1]),
        "wide": ResNet(Bottleneck, [2, 1, 1, 1], width_per_group=128),
    }
    images = torch.from_numpy(numbers(1000, 2 * 3 * 64 * 48).reshape(2, 3, 64, 48) * 4 - 2)
    with torch.no_grad():
        for name, network in networks.items():
            fill(network)
            network.eval()
            for stage, x in enumerate(stages(network, images), 1):
                out[f"{name}.eval.{stage}"] = x.flatten()[::STRIDE].contiguous()
            network.train()
            for stage, x in enumerate(stages(network, images), 1):
                out[f"{name}.batch.{stage}"] = x.flatten()[::STRIDE].contiguous()
            for norm in ("bn1", "layer1.0.bn2", "layer2.0.downsample.1"):
                for part in ("running_mean", "running_var"):
                    out[f"{name}.after.{norm}.{part}"] = network.state_dict()[f"{norm}.{part}"].clone()
    save_file(out, Path(__file__).parent / "reference.safetensors")


if __name__ == "__main__":
    main()
