#!/usr/bin/env python3
"""Writes the photographs beside this file from those that come with scikit-image.

    python3 make.py            # needs scikit-image 0.26 and Pillow

They are taken as they are (512 x 512 pixels, grey) and stored as JPEG of quality 90, which keeps them small.
"""

import hashlib
from pathlib import Path

import skimage
from PIL import Image

# As scikit-image 0.26.0 has them.
SHA256 = {
    "brick": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "grass": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
}


def main() -> None:
    data = Path(skimage.__file__).parent / "data"
    folder = Path(__file__).parent
    for name, expected in SHA256.items():
        source = data / f"{name}.png"
        found = hashlib.sha256(source.read_bytes()).hexdigest()
        if found != expected:
            raise SystemExit(f"{source}: expected sha256 {expected}, found {found}")
        Image.open(source).convert("L").save(folder / f"{name}.jpg", quality=90, optimize=True)
    lines = [f"{hashlib.sha256((folder / f'{n}.jpg').read_bytes()).hexdigest()}  {n}.jpg\n" for n in SHA256]
    (folder / "sha256").write_text("".join(lines))


if __name__ == "__main__":
    main()
