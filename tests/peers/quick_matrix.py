#!/usr/bin/env python3
"""The quick matrix once more, in PyTorch, beside what `cargo xtask reproduce` wrote.

    pip install torch numpy pillow gguf scikit-learn
    cargo xtask reproduce --profile quick --out runs/quick
    python tests/peers/quick_matrix.py runs/quick [--seeds 5]

Every cell of the run is computed anew from its record: the same images (`split.json`), the same weights
(`assets/dinov2-small-b9`), the same configuration (`result.json`), but Pillow, PyTorch and scikit-learn throughout, and
nothing of vitad. pixel-knn has no randomness and must agree as it is. Transformaly draws initial weights, shuffles and
dropout masks, which differ here: its figures are means over `--seeds` seeds for each cell here against the mean over the
run's seeds. (A run's seed also draws which images a limit keeps; both sides use the same.)
The exit status is 1 if a mean AUROC of a method, protocol and category differs by more than 0.005.
"""

import argparse
import collections
import gzip
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

    def block(self, p, x, drop=0.0):
        """One pre-norm block; `drop` is the rate at the three sites of Transformaly's backbone."""
        b, n, d = x.shape
        heads = lambda t: t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)
        u = F.layer_norm(x, (d,), p["n1w"], p["n1b"], self.eps)
        q, k, v = (heads(F.linear(u, p[c + "w"], p[c + "b"])) for c in "qkv")
        attention = F.dropout((q @ k.transpose(2, 3) * (d // self.heads) ** -0.5).softmax(-1), drop, drop > 0)
        h = F.linear((attention @ v).transpose(1, 2).reshape(b, n, d), p["ow"], p["ob"])
        x = x + F.dropout(h, drop, drop > 0) * p["g1"]
        u = F.layer_norm(x, (d,), p["n2w"], p["n2b"], self.eps)
        f = F.linear(F.gelu(F.linear(u, p["f1w"], p["f1b"])), p["f2w"], p["f2b"])
        return x + F.dropout(f, drop, drop > 0) * p["g2"]

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


def student_block(backbone):
    """Random, in spite of the reference's word for it: Xavier-uniform weights, tiny biases, plain norms."""
    d, hidden = backbone.width, backbone.w["encoder.layer.0.mlp.fc1.bias"].shape[0]
    p = {}
    for name, (rows, columns) in {
        "q": (d, d), "k": (d, d), "v": (d, d), "o": (d, d), "f1": (hidden, d), "f2": (d, hidden),
    }.items():
        p[name + "w"] = torch.empty(rows, columns)
        torch.nn.init.xavier_uniform_(p[name + "w"])
        p[name + "b"] = torch.randn(rows) * 1e-6
    for name in ("n1", "n2"):
        p[name + "w"], p[name + "b"] = torch.ones(d), torch.zeros(d)
    for name in ("g1", "g2"):
        p[name] = torch.ones(d)
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
    torch.manual_seed(seed)
    backbone = Backbone()
    size = config["image_size"]
    prepare = lambda part: pixels([images[p][0][i] for p, i in split[part]], size, *IMAGENET)
    train, test = prepare("train"), prepare("test")
    blocks = [backbone.block_weights(i) for i in range(backbone.depth)]
    student = [student_block(backbone) for _ in blocks]
    drop = config["dropout"]
    teacher_drop = drop if config["teacher_dropout"] else 0.0
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
        order = torch.randperm(len(train))
        for rows in batches(len(train), config["batch_size"]):
            x = train[order[rows.start : rows.stop]]
            adam.zero_grad()
            with torch.no_grad():
                t = backbone.embed(x)
            for teacher, pupil in zip(blocks, student):
                with torch.no_grad():
                    after = backbone.block(teacher, t, teacher_drop)
                loss = ((backbone.block(pupil, t, drop) - after) ** 2).mean() / len(blocks)
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
    arguments.add_argument("--seeds", type=int, default=3, help="of Transformaly, here")
    arguments.add_argument("--method", help="only the cells of this method")
    options = arguments.parse_args()
    images = load_images()
    ours, theirs = collections.defaultdict(list), collections.defaultdict(list)
    for cell in json.loads((options.run / "summary.json").read_text()):
        if options.method not in (None, cell["method"]):
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
        seeds = [0] if cell["method"] == "pixel-knn" else range(options.seeds)
        for seed in seeds:
            scores = (
                pixel_knn(config, images, split)
                if cell["method"] == "pixel-knn"
                else transformaly(config, images, split, seed)
            )
            for name, values in scores.items():
                theirs[key, name].append(roc_auc_score(anomalous, values))
            print(*key, f"seed {seed}", {name: theirs[key, name][-1] for name in scores}, file=sys.stderr)
        for name, value in terms.items():
            if (key, name) in theirs:
                ours[key, name].append(value)

    print("| method | protocol | category | figure | vitad (seeds) | PyTorch (seeds, sd) | difference |")
    print("|---|---|---|---|---|---|---|")
    off = 0
    for key, name in sorted(theirs):
        a, b = np.mean(ours[key, name]), np.mean(theirs[key, name])
        n, m, sd = len(ours[key, name]), len(theirs[key, name]), np.std(theirs[key, name])
        off += abs(a - b) > TOLERANCE
        print(f"| {' | '.join(key)} | {name} | {a:.4f} ({n}) | {b:.4f} ({m}, {sd:.4f}) | {a - b:+.4f} |", flush=True)
    print(f"{len(theirs) - off} within {TOLERANCE}, {off} beyond")
    sys.exit(off > 0)


if __name__ == "__main__":
    main()
