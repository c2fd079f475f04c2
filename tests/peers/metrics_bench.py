"""The peers of `cargo xtask bench metrics`: scikit-learn, torchmetrics, anomalib and adeval on the same maps and masks.

A case is `{"task", "tool", "inputs": {"folder", "images", "side"}}`; the folder holds `maps.f32` and `masks.u8`.
"""

import importlib
import importlib.metadata
import os
import warnings

import contender

warnings.filterwarnings("ignore")

LIMIT = 0.3
# The untimed calls before the first timed one: when the case is made ready, and at the start of the turn.
WARM_UPS = 2
# Images that are enough to load and warm all code.
FEW = 4

used = ["numpy"]


def load(inputs):
    import numpy

    shape = (inputs["images"], inputs["side"], inputs["side"])
    maps = numpy.fromfile(os.path.join(inputs["folder"], "maps.f32"), dtype="<f4").reshape(shape)
    masks = numpy.fromfile(os.path.join(inputs["folder"], "masks.u8"), dtype="u1").reshape(shape)
    return maps, masks


def scikit_learn(task, maps, masks):
    from sklearn.metrics import average_precision_score, roc_auc_score

    figure = {"auroc": roc_auc_score, "average_precision": average_precision_score}[task]
    return lambda count: figure(masks[:count].reshape(-1), maps[:count].reshape(-1))


def torchmetrics(task, maps, masks):
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    figure = {"auroc": binary_auroc, "average_precision": binary_average_precision}[task]
    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks)
    # Scores outside [0, 1] would be squashed: half of them keeps their order and their ties.
    scores = scores / 2

    def call(count):
        return figure(scores[:count].reshape(-1), truth[:count].reshape(-1)).item()

    return call


def anomalib(task, maps, masks):
    import torch
    from anomalib.metrics.aupro import _AUPRO

    assert task == "aupro"
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks)

    def call(count):
        metric = _AUPRO(fpr_limit=LIMIT)
        metric.update(scores[:count], truth[:count])
        return metric.compute().item()

    return call


def adeval_bins(task, maps, masks):
    import adeval

    assert task == "aupro"
    return lambda count: adeval.auroc_aupr_aupro(list(maps[:count]), list(masks[:count]))[2]


def adeval_thresholds(task, maps, masks):
    from adeval.au_pro import calculate_au_pro

    assert task == "aupro"
    return lambda count: calculate_au_pro(list(masks[:count]), list(maps[:count]), LIMIT, 100)[0]


# What makes each tool's call, its packages, and what that imports.
TOOLS = {
    "scikit-learn": (scikit_learn, ["scikit-learn"], "sklearn.metrics"),
    "torchmetrics": (torchmetrics, ["torchmetrics", "torch"], "torchmetrics.functional.classification"),
    "anomalib": (anomalib, ["anomalib", "torch"], "anomalib.metrics.aupro"),
    "adeval-bins": (adeval_bins, ["adeval"], "adeval"),
    "adeval-thresholds": (adeval_thresholds, ["adeval"], "adeval.au_pro"),
}


def prepare(case):
    make, packages, _ = TOOLS[case["tool"]]
    used[:] = ["numpy", *packages]
    maps, masks = load(case["inputs"])
    call = make(case["task"], maps, masks)
    calls, result = 0, float("nan")

    def iterate():
        nonlocal calls, result
        calls += 1
        # Some take minutes for all: what is not timed is done for a few.
        result = call(len(maps) if calls > WARM_UPS else min(FEW, len(maps)))

    return iterate, lambda: [float(result)]


def libraries(case):
    for module in ["numpy", TOOLS[case["tool"]][2]]:
        importlib.import_module(module)


def versions():
    return {name: importlib.metadata.version(name) for name in used}


contender.serve(prepare, versions, libraries)
