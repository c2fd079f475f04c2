#!/usr/bin/env python3
"""PyTorch's part in `cargo xtask bench anogan-trans`: a training step of both networks, eager.

Started by the command when Python has torch (`--python PATH`); see `contender.py` for what it is told and answers. The
step is done in one of two orders that give the same gradients: `shared`, each network's work once, and `reference`, the
order of the public code, which passes images through the discriminator five times and goes back through the generator
twice.
"""

import pathlib

# Before torch: it answers where that is missing.
import torch_contender
from torch_contender import read_tensors

import torch
import torch.nn.functional as F

HEADS, WINDOW, DEPTH = 4, 2, 3


class Windows:
    """How a square grid is cut into windows."""

    def __init__(self, side, shifted, device):
        self.side = side
        self.window = min(WINDOW, side)
        self.shift = WINDOW // 2 if shifted and side > WINDOW else 0
        w = self.window
        y, x = torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij")
        y, x = y.flatten(), x.flatten()
        down, right = y[:, None] - y[None] + w - 1, x[:, None] - x[None] + w - 1
        self.positions = (down * (2 * w - 1) + right).flatten().to(device)
        self.mask = None
        if self.shift:
            part = torch.zeros(side, dtype=torch.long)
            part[side - w :] = 1
            part[side - self.shift :] = 2
            regions = self.cut((3 * part[:, None] + part[None]).reshape(1, side, side, 1)).squeeze(-1)
            self.mask = torch.where(regions[:, :, None] == regions[:, None], 0.0, -100.0).to(device)

    def cut(self, x):
        b, h, w, c = x.shape
        n = self.window
        x = x.reshape(b, h // n, n, w // n, n, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, c)

    def join(self, windows):
        n, side = self.window, self.side
        x = windows.reshape(-1, side // n, side // n, n, n, windows.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side, side, windows.shape[-1])


class Generator:
    def __init__(self, weights, config, device):
        self.w = weights
        self.patch, self.size = config["patch_size"], config["image_size"]
        grid = self.size // self.patch
        self.windows = {
            (grid >> level, shifted): Windows(grid >> level, shifted, device)
            for level in range(DEPTH + 1)
            for shifted in (False, True)
        }

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"])

    def swin(self, name, x, shifted):
        b, tokens, c = x.shape
        side = int(tokens**0.5)
        windows = self.windows[side, shifted]
        shift, n = windows.shift, windows.window**2
        y = self.norm(name + ".norm1", x).reshape(b, side, side, c)
        if shift:
            y = torch.roll(y, (-shift, -shift), (1, 2))
        qkv = self.linear(name + ".attn.qkv", windows.cut(y))
        q, k, v = qkv.reshape(-1, n, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        logits = (q * (c // HEADS) ** -0.5) @ k.transpose(-2, -1)
        table = self.w[name + ".attn.relative_position_bias_table"]
        logits = logits + table[windows.positions].reshape(n, n, HEADS).permute(2, 0, 1)
        if windows.mask is not None:
            count = len(windows.mask)
            logits = logits.reshape(b, count, HEADS, n, n) + windows.mask[None, :, None]
            logits = logits.reshape(-1, HEADS, n, n)
        y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(-1, n, c)
        y = windows.join(self.linear(name + ".attn.proj", y))
        if shift:
            y = torch.roll(y, (shift, shift), (1, 2))
        x = x + y.reshape(b, tokens, c)
        hidden = F.gelu(self.linear(name + ".mlp.fc1", self.norm(name + ".norm2", x)))
        return x + self.linear(name + ".mlp.fc2", hidden)

    def attention(self, name, x):
        x = self.swin(name + ".att2", self.swin(name + ".att", x, False), True)
        return F.gelu(self.norm(name + ".ln", x))

    def merge(self, name, x):
        b, tokens, c = x.shape
        side = int(tokens**0.5) // 2
        x = x.reshape(b, side, 2, side, 2, c).permute(0, 1, 3, 4, 2, 5).reshape(b, tokens // 4, 4 * c)
        return self.linear(name + ".reduction", self.norm(name + ".norm", x))

    def expand(self, name, x):
        b, tokens, c = x.shape
        side = int(tokens**0.5)
        x = self.linear(name + ".expand", x).reshape(b, side, side, 2, 2, c // 2)
        return self.norm(name + ".norm", x.permute(0, 1, 3, 2, 4, 5).reshape(b, 4 * tokens, c // 2))

    def __call__(self, images):
        w = self.w
        x = F.conv2d(images, w["inc.Emb.0.proj.weight"], w["inc.Emb.0.proj.bias"], self.patch)
        x = self.norm("inc.Emb.0.norm", x.flatten(2).transpose(1, 2)) + w["inc.Emb.1.absolute_pos_embed"]
        skips = []
        for level in range(DEPTH):
            skips.append(self.attention(f"skip.{level}.0", x) if level < 2 else x)
            x = self.merge(f"down.{level}.down", self.attention(f"down.{level}.att", x))
        x = self.expand("bottom.1", self.attention("bottom.0.att", x))
        for stage in range(DEPTH):
            x = self.linear(f"up.{stage}.contact", torch.cat([x, skips.pop()], 2))
            x = self.expand(f"up.{stage}.up", self.attention(f"up.{stage}.att", x))
        x = self.linear("expand", x)
        b, q, side = len(images), self.patch // 2, 2 * self.size // self.patch
        x = x.reshape(b, side, side, q, q, 3).permute(0, 5, 1, 3, 2, 4).reshape(b, 3, self.size, self.size)
        return F.conv2d(x, w["out.0.weight"])


class Discriminator:
    def __init__(self, weights, config):
        self.w = weights
        self.size, self.width = config["image_size"], config["discriminator_width"]

    def __call__(self, x):
        w, wide = self.w, self.width
        x = F.leaky_relu(F.conv2d(x, w[f"feat.initial-conv-3-{wide}.weight"], stride=2, padding=1), 0.2)
        while x.shape[-1] > 4:
            x = F.conv2d(x, w[f"feat.pyramid-{wide}-{2 * wide}-conv.weight"], stride=2, padding=1)
            wide *= 2
            name = f"feat.pyramid-{wide}-batchnorm."
            running = w[name + "running_mean"], w[name + "running_var"]
            x = F.batch_norm(x, *running, w[name + "weight"], w[name + "bias"], True, 0.1)
            x = F.leaky_relu(x, 0.2)
        feature = F.conv2d(x, w[f"feat.final-{wide}-1-conv.weight"])
        logit = F.conv2d(feature, w["clas.classifier.weight"], padding=1)
        return logit.sigmoid().flatten(), feature


class Step:
    def __init__(self, case):
        device = torch.device(case["device"])
        inputs = pathlib.Path(case["inputs"])
        config = case["config"]
        weights = {"generator": {}, "discriminator": {}}
        for name, tensor in read_tensors(inputs / "weights.safetensors").items():
            network, name = name.split(".", 1)
            weights[network][name] = tensor.to(device)
        self.images = read_tensors(inputs / "images.safetensors")["images"].to(device)
        self.config, self.order = config, case["order"]
        self.generator = Generator(weights["generator"], config, device)
        self.discriminator = Discriminator(weights["discriminator"], config)
        self.parameters = []
        self.optimizers = []
        for own in weights.values():
            trained = [tensor for name, tensor in own.items() if "running_" not in name]
            for tensor in trained:
                tensor.requires_grad_(True)
            self.parameters.append(trained)
            betas = config["beta1"], config["beta2"]
            self.optimizers.append(torch.optim.Adam(trained, config["learning_rate"], betas))
        self.device = device

    def adversarial(self, probability):
        ones = torch.ones_like(probability)
        return self.config["adversarial_weight"] * F.binary_cross_entropy(probability, ones)

    def latent(self, painted, real):
        return self.config["latent_weight"] * F.mse_loss(painted, real)

    def against(self, real, painted):
        ones, zeros = torch.ones_like(real), torch.zeros_like(painted)
        return F.binary_cross_entropy(real, ones) + F.binary_cross_entropy(painted, zeros)

    def shared(self):
        x = self.images
        painted = self.generator(x)
        leaf = painted.detach().requires_grad_(True)
        p_real, h_real = self.discriminator(x)
        p_painted, h_painted = self.discriminator(leaf)
        adversarial, latent = self.adversarial(p_painted), self.latent(h_painted, h_real.detach())
        (arriving,) = torch.autograd.grad(adversarial + 2 * latent, leaf, retain_graph=True)
        difference = self.config["reconstruction_weight"] * F.l1_loss(painted, x)
        torch.autograd.backward([difference, painted], [None, arriving])
        against = self.against(p_real, p_painted) + self.latent(h_painted, h_real)
        against.backward(inputs=self.parameters[1])
        return adversarial + difference + latent, against

    def reference(self):
        x = self.images
        painted = self.generator(x)
        self.discriminator(x)
        self.discriminator(painted)
        p_real, h_real = self.discriminator(x)
        p_painted, h_painted = self.discriminator(painted)
        latent = self.latent(h_painted, h_real)
        difference = self.config["reconstruction_weight"] * F.l1_loss(painted, x)
        loss = self.adversarial(p_painted) + difference + latent
        loss.backward(retain_graph=True)
        self.optimizers[1].zero_grad()
        p_again, _ = self.discriminator(painted.detach())
        against = self.against(p_real, p_again) + latent
        against.backward()
        return loss, against

    def __call__(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        losses = {"shared": self.shared, "reference": self.reference}[self.order]()
        for optimizer in self.optimizers:
            optimizer.step()
        values = [loss.item() for loss in losses]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return values


def prepare(case):
    step = Step(case["anogan_trans"])
    losses = [value for _ in range(case["anogan_trans"]["losses"]) for value in step()]
    return step, lambda: losses


torch_contender.serve(prepare, lambda _: torch_contender.load_optimizers())
