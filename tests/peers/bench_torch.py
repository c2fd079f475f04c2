#!/usr/bin/env python3
"""PyTorch's part in `cargo xtask bench backbone`, `train-step`, `ops` and `optimizers`: the same networks as plain modules, eager.

Started by the command when Python has torch (`--python PATH`); see `contender.py` for what it is told and answers.
"""

import pathlib

# Before torch: it answers where that is missing.
import torch_contender
from torch_contender import read_tensors

import torch
import torch.nn.functional as F


class Attention(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config["heads"]
        self.qkv = torch.nn.Linear(config["dim"], 3 * config["dim"])
        self.proj = torch.nn.Linear(config["dim"], config["dim"])

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class Mlp(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc1 = torch.nn.Linear(config["dim"], config["mlp_hidden"])
        self.fc2 = torch.nn.Linear(config["mlp_hidden"], config["dim"])

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class Block(torch.nn.Module):
    """A pre-norm block under timm's names."""

    def __init__(self, config):
        super().__init__()
        scale = lambda: Scale(config["dim"]) if config["layer_scale"] else torch.nn.Identity()
        self.norm1 = torch.nn.LayerNorm(config["dim"], config["norm_eps"])
        self.attn = Attention(config)
        self.ls1 = scale()
        self.norm2 = torch.nn.LayerNorm(config["dim"], config["norm_eps"])
        self.mlp = Mlp(config)
        self.ls2 = scale()

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Vit(torch.nn.Module):
    """A ViT with class token and a position table of the images' own size, under timm's names."""

    def __init__(self, config):
        super().__init__()
        dim, patch, size = config["dim"], config["patch"], config["trained_size"]
        count = (size[0] // patch[0]) * (size[1] // patch[1])
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 1 + count, dim))
        self.patch_embed = torch.nn.Module()
        self.patch_embed.proj = torch.nn.Conv2d(3, dim, tuple(patch), tuple(patch))
        self.blocks = torch.nn.Sequential(*(Block(config) for _ in range(config["depth"])))
        self.norm = torch.nn.LayerNorm(dim, config["norm_eps"])

    def forward(self, images):
        patches = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.pos_embed
        return self.norm(self.blocks(tokens))


def load(module, tensors):
    """Gives `module` these weights, without a second copy."""
    module.load_state_dict(tensors, strict=True, assign=True)
    return module


def finish(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flat(tensor):
    return tensor.detach().double().flatten().tolist()


def backbone(case):
    device = torch.device(case["device"])
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case["precision"]]
    inputs = pathlib.Path(case["inputs"])
    with torch.device("meta"):
        vit = Vit(case["network"])
    vit = load(vit, read_tensors(inputs / "weights.safetensors")).to(device, dtype).eval()
    images = read_tensors(inputs / "images.safetensors")["images"].to(device, dtype)

    @torch.inference_mode()
    def run():
        tokens = vit(images)
        finish(device)
        return tokens

    return run, lambda: flat(run())


def train_step(case):
    device = torch.device(case["device"])
    inputs = pathlib.Path(case["inputs"])
    with torch.device("meta"):
        blocks = torch.nn.Sequential(*(Block(case["block"]) for _ in range(case["blocks"])))
    blocks = load(blocks, read_tensors(inputs / "weights.safetensors")).to(device)
    for parameter in blocks.parameters():
        parameter.requires_grad_(True)
    data = {name: tensor.to(device) for name, tensor in read_tensors(inputs / "data.safetensors").items()}
    optimizer = torch.optim.AdamW(
        blocks.parameters(), lr=case["learning_rate"], weight_decay=case["weight_decay"]
    )

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(blocks(data["tokens"]), data["target"])
        loss.backward()
        optimizer.step()
        value = loss.item()
        finish(device)
        return value

    losses = [step() for _ in range(case["losses"])]
    return step, lambda: losses


def attention(qkv, heads):
    b, n, packed = qkv.shape
    q, k, v = qkv.reshape(b, n, 3, heads, packed // 3 // heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, packed // 3)


def window(sigma, radius):
    taps = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2 / (2 * sigma**2))
    return (taps / taps.sum()).float()


def blur(x, taps):
    """Where the whole window fits, each channel by itself."""
    channels = x.shape[1]
    taps = taps.to(x.device)
    x = F.conv2d(x, taps.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def ssim(x, y):
    taps = window(1.5, 5)
    moments = blur(torch.cat([x, y, x * x, y * y, x * y]), taps).chunk(5)
    mx, my, xx, yy, xy = moments
    vx, vy, covariance = xx - mx * mx, yy - my * my, xy - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


OPERATIONS = {
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias, 1e-6),
    "softmax": lambda x: x.softmax(-1),
    "bias_gelu": lambda x, bias: F.gelu(x + bias),
    "add_residual": lambda x, branch, bias, scale: x + scale * (branch + bias),
    "linear": F.linear,
    "linear_gelu": lambda x, weight, bias: F.gelu(F.linear(x, weight, bias)),
    "attention": lambda qkv: attention(qkv, 12),
    "long_attention": lambda qkv: attention(qkv, 6),
    "patch_embed": lambda images, weight, bias: F.conv2d(images, weight, bias, weight.shape[2:])
    .flatten(2)
    .transpose(1, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=8, mode="bilinear", align_corners=False),
    "gaussian": lambda x: blur(F.pad(x, (16, 16, 16, 16), mode="reflect"), window(4.0, 16)),
    "ssim": ssim,
}


def ops(case):
    device = torch.device(case["device"])
    operation = OPERATIONS[case["operation"]]
    tensors = read_tensors(pathlib.Path(case["inputs"]) / "inputs.safetensors")
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    gradient = tensors.pop("gradient")
    results = []

    @torch.inference_mode()
    def forward():
        results[:] = [operation(**tensors)]
        finish(device)

    def backward():
        for tensor in tensors.values():
            tensor.requires_grad_(True)
            tensor.grad = None
        if device.type == "cpu":
            operation(**tensors).backward(gradient)
        else:
            # As the program's own contenders start there.
            (operation(**tensors) * gradient).sum().backward()
        results[:] = [tensors[name].grad for name in sorted(tensors)]
        finish(device)

    def outcome():
        return [value for result in results for value in flat(result)]

    return (backward if case["backward"] else forward), outcome


RULES = {
    "adam": lambda case: (torch.optim.Adam, {"weight_decay": case["weight_decay"]}),
    "adam_w": lambda case: (torch.optim.AdamW, {"weight_decay": case["weight_decay"]}),
    "sgd": lambda case: (
        torch.optim.SGD,
        {"weight_decay": case["weight_decay"], "momentum": case["momentum"]},
    ),
}


def optimizers(case):
    device = torch.device(case["device"])
    inputs = pathlib.Path(case["inputs"])
    weights = read_tensors(inputs / "weights.safetensors")
    parameters = {name: tensor.to(device).requires_grad_(True) for name, tensor in sorted(weights.items())}
    for name, gradient in read_tensors(inputs / "gradients.safetensors").items():
        parameters[name].grad = gradient.to(device)
    make, options = RULES[case["rule"]](case)
    if case.get("fused"):
        options["fused"] = True
    optimizer = make(parameters.values(), lr=case["learning_rate"], **options)

    def step():
        optimizer.step()
        finish(device)

    for _ in range(case["steps"]):
        step()
    first = [value for tensor in parameters.values() for value in flat(tensor.flatten()[:8])]
    return step, lambda: first


KINDS = {"optimizers": optimizers, "ops": ops, "backbone": backbone, "train_step": train_step}


def prepare(case):
    ((kind, rest),) = case.items()
    if kind not in KINDS:
        raise ValueError(f"{kind} has no counterpart in PyTorch")
    return KINDS[kind](rest)


def libraries(case):
    if "train_step" in case or "optimizers" in case:
        torch_contender.load_optimizers()


torch_contender.serve(prepare, libraries)
