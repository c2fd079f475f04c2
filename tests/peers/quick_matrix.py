#!/usr/bin/env python3
"""The quick matrix once more, in PyTorch, beside what `cargo xtask reproduce` wrote.

    pip install torch numpy pillow gguf scikit-learn
    cargo xtask reproduce --profile quick --out runs/quick
    python tests/peers/quick_matrix.py runs/quick

Every cell of the run is computed anew from its record: the same images (`split.json`), the same weights
(`assets/dinov2-small-b9`), the same configuration and seed (`result.json`), but Pillow, PyTorch and scikit-learn
throughout, and nothing of vitad. The draws are the same too: a named stream is ChaCha with 8 rounds, keyed by the sha256
of seed and name, which is a page of NumPy (class Stream). So initial weights, shuffles and dropout masks agree, and what
differs is the arithmetic alone. The exit status is 1 if an AUROC differs by more than 0.005.
"""

import argparse
import collections
import gzip
import hashlib
import json
import math
import pathlib
import sys

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
TOLERANCE = 0.005


def read_idx(name):
    with gzip.open(ROOT / "assets/fashion-mnist-sample" / name) as file:
        data = file.read()
    axes = data[3]
    shape = np.frombuffer(data[4 : 4 + 4 * axes], ">u4").astype(int)
    return np.frombuffer(data[4 + 4 * axes :], np.uint8).reshape(shape)


def load_images():
    return {
        "train": (read_idx("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz")),
        "test": (read_idx("t10k-images-idx3-ubyte.gz"), read_idx("t10k-labels-idx1-ubyte.gz")),
    }


def pixels(images, size, mean, std):
    """8-bit Pillow bilinear to a square, three equal channels, normalised: (N, 3, size, size)."""
    out = []
    for image in images:
        resized = np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR), np.float32) / 255
        out.append((resized[None] - mean[:, None, None]) / std[:, None, None])
    return torch.from_numpy(np.stack(out).astype(np.float32))


class Backbone:
    """DINOv2's architecture on the embedded weights, de-quantised."""

    def __init__(self):
        reader = gguf.GGUFReader(str(ROOT / "assets/dinov2-small-b9/dinov2-small-b9.gguf"))
        self.w = {}
        for tensor in reader.tensors:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            shape = [int(d) for d in reversed(tensor.shape)]
            self.w[tensor.name] = torch.from_numpy(np.array(values, np.float32).reshape(shape))
        config = json.loads((ROOT / "assets/dinov2-small-b9/config.json").read_text())
        self.depth, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.width, self.patch, self.eps = config["hidden_size"], config["patch_size"], config["layer_norm_eps"]

    def embed(self, x):
        w = self.w
        prefix = "embeddings.patch_embeddings.projection."
        patches = F.conv2d(x, w[prefix + "weight"], w[prefix + "bias"], stride=self.patch)
        grid = patches.shape[2:]
        patches = patches.flatten(2).transpose(1, 2)
        table = w["embeddings.position_embeddings"].reshape(1, -1, self.width)
        side = math.isqrt(table.shape[1] - 1)
        positions = table[:, 1:].reshape(1, side, side, self.width).permute(0, 3, 1, 2)
        positions = F.interpolate(positions, size=grid, mode="bicubic", align_corners=False)
        patches = patches + positions.permute(0, 2, 3, 1).reshape(1, -1, self.width)
        first = (w["embeddings.cls_token"].reshape(1, 1, -1) + table[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([first, patches], 1)

    def block_weights(self, i):
        names = {
            "n1w": "norm1.weight", "n1b": "norm1.bias", "n2w": "norm2.weight", "n2b": "norm2.bias",
            "qw": "attention.attention.query.weight", "qb": "attention.attention.query.bias",
            "kw": "attention.attention.key.weight", "kb": "attention.attention.key.bias",
            "vw": "attention.attention.value.weight", "vb": "attention.attention.value.bias",
            "ow": "attention.output.dense.weight", "ob": "attention.output.dense.bias",
            "f1w": "mlp.fc1.weight", "f1b": "mlp.fc1.bias", "f2w": "mlp.fc2.weight", "f2b": "mlp.fc2.bias",
            "g1": "layer_scale1.lambda1", "g2": "layer_scale2.lambda1",
        }
        return {short: self.w[f"encoder.layer.{i}.{name}"] for short, name in names.items()}

    def block(self, p, x, drop=lambda t: t):
        """One pre-norm block; `drop` is called at the three dropout sites of Transformaly's backbone."""
        b, n, d = x.shape
        heads = lambda t: t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)
        u = F.layer_norm(x, (d,), p["n1w"], p["n1b"], self.eps)
        q, k, v = (heads(F.linear(u, p[c + "w"], p[c + "b"])) for c in "qkv")
        attention = drop((q @ k.transpose(2, 3) * (d // self.heads) ** -0.5).softmax(-1))
        h = F.linear((attention @ v).transpose(1, 2).reshape(b, n, d), p["ow"], p["ob"])
        x = x + drop(h) * p["g1"]
        u = F.layer_norm(x, (d,), p["n2w"], p["n2b"], self.eps)
        f = F.linear(F.gelu(F.linear(u, p["f1w"], p["f1b"])), p["f2w"], p["f2b"])
        return x + drop(f) * p["g2"]

    def norm(self, x):
        return F.layer_norm(x, (self.width,), self.w["layernorm.weight"], self.w["layernorm.bias"], self.eps)

    def tokens(self, x):
        t = self.embed(x)
        for i in range(self.depth):
            t = self.block(self.block_weights(i), t)
        return self.norm(t)


def batches(n, size):
    return [range(i, min(i + size, n)) for i in range(0, n, size)]


# ---------------------------------------------------------------- pixel-knn


def knn(config, train, test):
    """The k nearest neighbours of each test row; higher = more anomalous."""
    train, test = train.double(), test.double()
    if config["metric"] == "cosine":
        distance = 1 - F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    else:
        distance = torch.cdist(test, train, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(config["k"], largest=False).values.mean(1).numpy()


def pixel_knn(config, images, split):
    def features(part):
        raw = [images[p][0][i] for p, i in split[part]]
        if config["features"] == "pixels":
            half = np.full(3, 0.5)
            return pixels(raw, config["image_size"], half, half).flatten(1)
        backbone, out = Backbone(), []
        for rows in batches(len(raw), 64):
            x = pixels([raw[i] for i in rows], config["image_size"], *IMAGENET)
            out.append(backbone.tokens(x)[:, 1:].mean(1))
        return torch.cat(out)

    with torch.no_grad():
        return {"score": knn(config, features("train"), features("test"))}


# ---------------------------------------------------------------- Transformaly


class Stream:
    """One named random stream of a seed, as the crate random-streams defines it."""

    def __init__(self, seed, name):
        key = hashlib.sha256(seed.to_bytes(8, "little") + name.encode()).digest()
        self.key, self.at = np.frombuffer(key, "<u4"), 0

    def words(self, n):
        """The next n 32-bit words."""
        first, last = self.at // 16, (self.at + n + 15) // 16
        counter = np.arange(first, last, dtype=np.uint64)
        blocks = len(counter)
        state = np.empty((16, blocks), np.uint32)
        state[:4] = np.frombuffer(b"expand 32-byte k", "<u4")[:, None]
        state[4:12] = self.key[:, None]
        state[12] = counter & np.uint64(0xFFFFFFFF)
        state[13] = counter >> np.uint64(32)
        state[14:] = 0
        x = state.copy()
        rotate = lambda v, n: (v << np.uint32(n)) | (v >> np.uint32(32 - n))

        def quarter(a, b, c, d):
            for p, q, r, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[p] += x[q]
                x[r] = rotate(x[r] ^ x[p], n)

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        start = self.at - 16 * first
        self.at += n
        return (x + state).T.reshape(-1)[start : start + n]

    def uniform(self, n):
        return (self.words(n) >> np.uint32(8)).astype(np.float32) * np.float32(1 / (1 << 24))

    def normal(self, n):
        high, low, angle = self.words(3 * n).astype(np.uint64).reshape(n, 3).T
        u = ((((high << np.uint64(32)) | low) >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
        turn = angle.astype(np.float64) / (2**32 - 1) * math.tau
        return (np.sqrt(-2 * np.log(u)) * np.cos(turn)).astype(np.float32)

    def below(self, bound):
        limit = 2**64 - 2**64 % bound
        while True:
            high, low = (int(w) for w in self.words(2))
            if (high << 32 | low) < limit:
                return (high << 32 | low) % bound

    def permutation(self, n):
        order = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def dropout(self, x, rate):
        kept = self.words(x.numel()) >= np.uint32(int(rate * 2**32))
        return x * torch.from_numpy(kept.astype(np.float32)).reshape(x.shape) * (1 / (1 - rate))


def student_block(backbone, stream):
    """Random, in spite of the reference's word for it: Xavier-uniform weights, tiny biases, plain norms."""
    d, hidden = backbone.width, backbone.w["encoder.layer.0.mlp.fc1.bias"].shape[0]

    def weight(rows, columns, layers=1):
        bound = np.float32(math.sqrt(6 / (rows / layers + columns)))
        values = (np.float32(2) * stream.uniform(rows * columns) - np.float32(1)) * bound
        return torch.from_numpy(values.reshape(rows, columns))

    bias = lambda rows: torch.from_numpy(stream.normal(rows) * np.float32(1e-6))
    p = {name: torch.ones(d) for name in ("n1w", "n2w", "g1", "g2")}
    p |= {name: torch.zeros(d) for name in ("n1b", "n2b")}
    for name, part in zip("qkv", weight(3 * d, d, 3).chunk(3)):
        p[name + "w"] = part.clone()
    for name, part in zip("qkv", bias(3 * d).chunk(3)):
        p[name + "b"] = part.clone()
    for name, rows, columns in (("o", d, d), ("f1", hidden, d), ("f2", d, hidden)):
        p[name + "w"] = weight(rows, columns)
        p[name + "b"] = bias(rows)
    return {k: v.requires_grad_() for k, v in p.items()}


def gaussian(train, test, regular=1e-6):
    mean = train.mean(0)
    centred = train - mean
    covariance = centred.T @ centred / len(train) + regular * np.eye(train.shape[1])
    solved = np.linalg.solve(covariance, (test - mean).T).T
    distance = ((test - mean) * solved).sum(1)
    return -0.5 * (train.shape[1] * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + distance)


def whiten(train, test, threshold):
    mean = train.mean(0)
    values, vectors = np.linalg.eigh(np.cov(train.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    ratio = np.cumsum(values) / values.sum()
    k = min(max(1, int((ratio <= threshold).sum())), train.shape[1] - 1)
    project = lambda x: (x - mean) @ vectors[:, :k] / np.sqrt(values[:k])
    return project(train), project(test)


def transformaly(config, images, split, seed):
    backbone, init = Backbone(), Stream(seed, "init")
    size = config["image_size"]
    prepare = lambda part: pixels([images[p][0][i] for p, i in split[part]], size, *IMAGENET)
    train, test = prepare("train"), prepare("test")
    blocks = [backbone.block_weights(i) for i in range(backbone.depth)]
    student = [student_block(backbone, init) for _ in blocks]
    teacher_noise, student_noise = Stream(seed, "teacher-dropout"), Stream(seed, "student-dropout")
    student_drop = lambda t: student_noise.dropout(t, config["dropout"])
    teacher_drop = (lambda t: teacher_noise.dropout(t, config["dropout"])) if config["teacher_dropout"] else lambda t: t
    shuffle = Stream(seed, "shuffle")
    adam = torch.optim.Adam([t for p in student for t in p.values()], lr=config["learning_rate"])

    def features(x):
        """Class tokens (n, D) and minus the mean squared error a block (n, L), in eval mode."""
        tops, errors = [], []
        with torch.no_grad():
            for rows in batches(len(x), 64):
                t, row = backbone.embed(x[rows.start : rows.stop]), []
                for teacher, pupil in zip(blocks, student):
                    after = backbone.block(teacher, t)
                    row.append(-((backbone.block(pupil, t) - after) ** 2).mean((1, 2)))
                    t = after
                tops.append(backbone.norm(t)[:, 0])
                errors.append(torch.stack(row, 1))
        return torch.cat(tops).double().numpy(), torch.cat(errors).double().numpy()

    def score():
        (top_train, ts_train), (top_test, ts_test) = features(train), features(test)
        pretrained = -gaussian(*whiten(top_train, top_test, config["whitening_threshold"]))
        teacher_student = -gaussian(ts_train[:, 2:], ts_test[:, 2:])
        return {"score": pretrained + teacher_student, "pretrained": pretrained, "teacher_student": teacher_student}

    for _ in range(config["epochs"]):
        order = torch.tensor(shuffle.permutation(len(train)))
        for rows in batches(len(train), config["batch_size"]):
            x = train[order[rows.start : rows.stop]]
            adam.zero_grad()
            with torch.no_grad():
                t = backbone.embed(x)
            for teacher, pupil in zip(blocks, student):
                with torch.no_grad():
                    after = backbone.block(teacher, t, teacher_drop)
                loss = ((backbone.block(pupil, t, student_drop) - after) ** 2).mean() / len(blocks)
                loss.backward()
                t = after
            adam.step()
    return score()


# ---------------------------------------------------------------- comparison


def parse_id(item):
    part, index = item.split("/")[:2]
    return part, int(index)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=pathlib.Path, help="an output folder of `cargo xtask reproduce`")
    arguments.add_argument("--method", help="only the cells of this method")
    options = arguments.parse_args()
    images = load_images()
    ours, theirs = collections.defaultdict(list), collections.defaultdict(list)
    for cell in json.loads((options.run / "summary.json").read_text()):
        if options.method not in (None, cell["method"]):
            continue
        if cell["method"] not in ("pixel-knn", "transformaly") or cell["dataset"] != "fashion-mnist-sample":
            continue
        folder = options.run / "cells" / cell["cell"]
        split = json.loads((folder / "split.json").read_text())
        split = {part: [parse_id(item) for item in split[part]] for part in ("train", "test")}
        labels = np.array([images[p][1][i] for p, i in split["test"]])
        wanted = int(cell["category"])
        anomalous = labels != wanted if cell["protocol"] == "unimodal" else labels == wanted
        config = cell["config"]
        features = f" on {config['features']}" if cell["method"] == "pixel-knn" else ""
        key = (cell["method"] + features, cell["protocol"], cell["category"])
        result = cell["results"]["last"]["image_auroc"]
        terms = {name: term["image_auroc"] for name, term in cell["terms"].items()}
        ours[key, "score"].append(result)
        if cell["method"] == "pixel-knn":
            scores = pixel_knn(config, images, split)
        else:
            scores = transformaly(config, images, split, cell["seed"])
        for name, values in scores.items():
            theirs[key, name].append(roc_auc_score(anomalous, values))
        print(*key, {name: theirs[key, name][-1] for name in scores}, file=sys.stderr)
        for name, value in terms.items():
            if (key, name) in theirs:
                ours[key, name].append(value)

    print("| method | protocol | category | figure | vitad | PyTorch | largest difference of a seed |")
    print("|---|---|---|---|---|---|---|")
    off = 0
    for key, name in sorted(theirs):
        a, b = np.array(ours[key, name]), np.array(theirs[key, name])
        worst = np.abs(a - b).max()
        off += worst > TOLERANCE
        print(f"| {' | '.join(key)} | {name} | {a.mean():.4f} | {b.mean():.4f} | {worst:.4f} |")
    print(f"{len(theirs) - off} within {TOLERANCE}, {off} beyond")
    sys.exit(off > 0)


if __name__ == "__main__":
    main()
