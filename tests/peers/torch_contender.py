"""What the peers that run PyTorch have in common: its settings, its versions, tensors read from the program's files.

Importing this ends a peer whose Python has no torch, with that answer to every request.
"""

import json
import sys

import contender

try:
    import torch
except ImportError as error:
    contender.refuse(f"{sys.executable} has no torch ({error})")
    sys.exit()


def serve(prepare, libraries=None):
    """`contender.serve` with f32 that is f32 on a GPU too, as the program's own contenders have it: convolutions would
    use TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    contender.serve(prepare, versions, libraries)


def versions():
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "tf32": "on" if tf32 else "off",
    }


def load_optimizers():
    """The first optimiser imports torch._dynamo, 150 MiB."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)


def read_tensors(path):
    """The f32 tensors of a safetensors file, copied out of it; those of other types are left out."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] == "F32":
                tensors[name] = (*entry["data_offsets"], entry["shape"])
        # In the file's order, each straight into its own memory: the peak is that of the tensors.
        for name, (begin, end, shape) in sorted(tensors.items(), key=lambda item: item[1][0]):
            file.seek(start + begin)
            values = torch.empty(shape, dtype=torch.float32)
            if end > begin:
                file.readinto(memoryview(values.view(-1).numpy()).cast("B"))
            tensors[name] = values
    return tensors
