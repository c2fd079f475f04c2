"""Makes the two small checkpoints beside it in the form `torch.save` writes, without PyTorch: python3 make.py

plain.pth is a state dict; nested.pth has one under `teacher` and another under `student`.
"""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})


def stand_in(module, name, kind=type):
    """Something that pickles as a reference to `module.name`."""
    if kind is type:
        value = type(name, (), {"__module__": module.__name__})
    else:
        value = types.FunctionType((lambda *_: None).__code__, {}, name)
        value.__module__, value.__qualname__ = module.__name__, name
    setattr(module, name, value)
    return value


FLOAT, HALF = stand_in(torch, "FloatStorage"), stand_in(torch, "HalfStorage")
REBUILD = stand_in(utils, "_rebuild_tensor_v2", "function")


class Storage:
    def __init__(self, kind, code, values):
        self.kind, self.values = kind, values
        self.bytes = struct.pack(f"<{len(values)}{code}", *values)


class Tensor:
    def __init__(self, storage, size, stride):
        self.storage, self.size, self.stride = storage, size, stride

    def __reduce__(self):
        return REBUILD, (self.storage, 0, self.size, self.stride, False, collections.OrderedDict())


def save(path, value):
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            storages.append(item)
            return ("storage", item.kind, str(len(storages) - 1), "cpu", len(item.values))

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:

        def add(name, content):
            # A fixed date makes the file the same every time.
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}", (1980, 1, 1, 0, 0, 0)), content)

        add("data.pkl", stream.getvalue())
        add("byteorder", b"little")
        for number, storage in enumerate(storages):
            add(f"data/{number}", storage.bytes)
        add("version", b"3\n")


def state_dict():
    return collections.OrderedDict(
        weight=Tensor(Storage(FLOAT, "f", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), (2, 3), (3, 1)),
        half=Tensor(Storage(HALF, "e", [0.5, -2.0]), (2,), (1,)),
    )


here = Path(__file__).resolve().parent
save(here / "plain.pth", state_dict())
student = collections.OrderedDict(weight=Tensor(Storage(FLOAT, "f", [7.0]), (1,), (1,)))
save(here / "nested.pth", {"epoch": 3, "student": student, "teacher": state_dict(), "rate": 0.5})
