#!/usr/bin/env python3
"""Makes this folder's idx files from the whole of Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python3 make.py [--source /usr/share/datasets/fashion-mnist] [--train 200] [--test 100]

Takes the first images of each class and keeps them in the data set's order. Prints the sha256 of every file; they are
pinned in crates/datasets/src/fashion_mnist.rs. Another zlib may compress to other bytes; the sha256 of the contents
(printed beside it) must then still be the same.
"""

import argparse
import gzip
import hashlib
import io
import pathlib
import struct
import sys


def read_idx(path: pathlib.Path) -> tuple[tuple[int, ...], bytes]:
    with gzip.open(path) as file:
        data = file.read()
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    samples = data[4 + 4 * rank :]
    wanted = 1
    for side in shape:
        wanted *= side
    if zero != 0 or kind != 8 or len(samples) != wanted:
        sys.exit(f"{path}: not an idx file of bytes, or cut short")
    return shape, samples


def write_idx(path: pathlib.Path, shape: tuple[int, ...], samples: bytes) -> None:
    content = struct.pack(">HBB", 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape) + samples
    packed = io.BytesIO()
    # No name and no time: the same bytes wherever and whenever this runs.
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=9, mtime=0) as file:
        file.write(content)
    path.write_bytes(packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    print(f"{digest}  {path.name}  (contents {hashlib.sha256(content).hexdigest()})")


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--source", type=pathlib.Path, default=pathlib.Path("/usr/share/datasets/fashion-mnist"))
    options.add_argument("--train", type=int, default=200, help="training images a class")
    options.add_argument("--test", type=int, default=100, help="test images a class")
    chosen = options.parse_args()
    for split, wanted in (("train", chosen.train), ("t10k", chosen.test)):
        (count, height, width), pixels = read_idx(chosen.source / f"{split}-images-idx3-ubyte.gz")
        (labelled,), labels = read_idx(chosen.source / f"{split}-labels-idx1-ubyte.gz")
        if labelled != count:
            sys.exit(f"{chosen.source}: {count} {split} images but {labelled} labels")
        area = height * width
        taken = dict.fromkeys(range(10), 0)
        kept = []
        for index, label in enumerate(labels):
            if taken[label] < wanted:
                taken[label] += 1
                kept.append(index)
        if set(taken.values()) != {wanted}:
            sys.exit(f"{chosen.source}: fewer than {wanted} {split} images of some class: {taken}")
        images = b"".join(pixels[i * area : (i + 1) * area] for i in kept)
        write_idx(here / f"{split}-images-idx3-ubyte.gz", (len(kept), height, width), images)
        write_idx(here / f"{split}-labels-idx1-ubyte.gz", (len(kept),), bytes(labels[i] for i in kept))


if __name__ == "__main__":
    main()
