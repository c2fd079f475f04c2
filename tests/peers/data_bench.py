#!/usr/bin/env python3
"""torchvision's and Pillow's part in `cargo xtask bench data`: the usual folder, transforms and `DataLoader`.

Started by the command when Python has torchvision (`--python PATH`); see `contender.py` for what it is told and answers.
"""

import pathlib
import sys

import contender

try:
    import PIL
    import torch
    import torchvision
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
except ImportError as error:
    contender.refuse(f"{sys.executable} lacks torchvision ({error})")
    sys.exit()


def prepare(case):
    case = case["data"]
    transform = transforms.Compose(
        [
            transforms.Resize((case["size"], case["size"]), InterpolationMode.BILINEAR),
            transforms.ToTensor(),
            transforms.Normalize(case["mean"], case["std"]),
        ]
    )
    folder = torchvision.datasets.ImageFolder(str(pathlib.Path(case["folder"]) / "train"), transform)
    # The workers stay from epoch to epoch: starting them is not what is measured.
    loader = torch.utils.data.DataLoader(
        folder, batch_size=case["batch"], num_workers=case["workers"], persistent_workers=True
    )

    def iterate():
        count = sum(len(images) for images, _ in loader)
        if count != len(folder):
            raise RuntimeError(f"expected {len(folder)} images, read {count}")

    def outcome():
        first = torch.stack([folder[index][0] for index in range(case["compared"])])
        return first.double().flatten().tolist()

    return iterate, outcome


def versions():
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "memory": "not measured, its workers are processes of their own",
    }


# Each worker has one core's worth of work; more threads in each would only get in each other's way.
torch.set_num_threads(1)
contender.serve(prepare, versions, weighed=False)
