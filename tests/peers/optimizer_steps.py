#!/usr/bin/env python3
"""Writes what PyTorch's optimisers and schedules do, step by step, for the tests of the crate `optim`.

    python3 tests/peers/optimizer_steps.py crates/optim/tests/fixtures

needs torch and safetensors. One file for each optimiser, one for the schedules. StableAdamW is not in PyTorch: it is
written out below after its definition. The files' metadata name the version of PyTorch and hold the cases' settings.
"""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import lr_scheduler

STEPS = 14
# In these steps the second parameter gets no gradient; in this one the first gets zeros.
WITHOUT, ZEROS = (4, 5), 7


class StableAdamW(torch.optim.Optimizer):
    """AdamW with update clipping for each tensor (Wortsman et al. 2023, arXiv 2304.13013), in the form that Dinomaly
    (arXiv 2405.14325) trains with: the step is divided by max(1, rms(g / denominator) / limit), where the denominator
    is AdamW's own (that of AMSGrad when asked for), and the weight decay goes on at the full rate."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, amsgrad=False, update_limit=1.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      update_limit=update_limit))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p), largest=torch.zeros_like(p))
                state["t"] += 1
                g, t = p.grad, state["t"]
                state["m"] = beta1 * state["m"] + (1 - beta1) * g
                state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
                state["largest"] = torch.maximum(state["largest"], state["v"])
                square = state["largest"] if group["amsgrad"] else state["v"]
                denominator = (square / (1 - beta2**t)).sqrt() + group["eps"]
                rms = (g / denominator).square().mean().sqrt().item()
                rate = group["lr"] / max(1.0, rms / group["update_limit"])
                p -= group["lr"] * group["weight_decay"] * p
                p -= rate * (state["m"] / (1 - beta1**t)) / denominator


def start(dtype):
    rng = torch.Generator().manual_seed(20)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)
    a, b = draw(3, 5), draw(7)
    # Between 1e-4 and 10, as gradients are; a jump at the end.
    sizes = 10.0 ** torch.linspace(-4, 1, STEPS, dtype=torch.float64)[torch.randperm(STEPS, generator=rng)]
    sizes[-1] = 50.0
    gradients = [(draw(3, 5) * size.to(dtype), draw(7) * size.to(dtype)) for size in sizes]
    gradients[ZEROS][0].zero_()
    return a, b, gradients


def run(make, case, dtype):
    """The parameters after each step, and the learning rates used."""
    a, b, gradients = start(dtype)
    a, b = torch.nn.Parameter(a), torch.nn.Parameter(b)
    options = {k: v for k, v in case["options"].items()}
    groups = [dict(params=[a]), dict(params=[b])]
    for group, own in zip(groups, case.get("groups", [{}, {}])):
        if "learning_rate_factor" in own:
            group["lr"] = options["lr"] * own["learning_rate_factor"]
        if "weight_decay" in own:
            group["weight_decay"] = own["weight_decay"]
    optimizer = make(groups, **options)
    scheduler = make_schedule(optimizer, case["schedule"]) if "schedule" in case else None
    after_a, after_b, rates = [], [], []
    for step, (ga, gb) in enumerate(gradients):
        a.grad, b.grad = ga.clone(), None if step in WITHOUT else gb.clone()
        if "max_norm" in case:
            clip_grad_norm_([a, b], case["max_norm"])
        if "max_value" in case:
            clip_grad_value_([a, b], case["max_value"])
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after_a.append(a.detach().clone())
        after_b.append(b.detach().clone())
        if scheduler:
            scheduler.step()
    return torch.stack(after_a), torch.stack(after_b), torch.tensor(rates, dtype=torch.float64)


def make_schedule(optimizer, schedule):
    """PyTorch's scheduler for a schedule as `optim::Schedule` is written in JSON."""
    if schedule == "constant":
        return lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    ((name, s),) = schedule.items()
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=s["length"], eta_min=s["floor"])
    if name == "step":
        return lr_scheduler.StepLR(optimizer, step_size=s["every"], gamma=s["factor"])
    if name == "multi_step":
        return lr_scheduler.MultiStepLR(optimizer, milestones=s["milestones"], gamma=s["factor"])
    if name == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, gamma=s["factor"])
    if name == "linear":
        return lr_scheduler.LinearLR(optimizer, start_factor=s["from"], end_factor=s["to"], total_iters=s["length"])
    if name == "linear_decay":
        return lr_scheduler.LambdaLR(
            optimizer,
            lambda t: max(0.0, 1 - max(0, t + 1 + s["offset"] - s["constant"]) / (s["decay"] + 1)),
        )
    if name == "warmup":
        assert s["then"] == "constant"
        base = optimizer.param_groups[0]["lr"]
        ramp = {"linear": lambda x: x, "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2}[s["ramp"]]
        rate = lambda t: s["from"] + min(1.0, ramp(min(t, s["length"]) / s["length"])) * (base - s["from"])
        return lr_scheduler.LambdaLR(optimizer, lambda t: rate(t) / base)
    if name == "sequence":
        parts = [make_schedule(optimizer, s["first"]), make_schedule(optimizer, s["then"])]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[s["length"]])
    raise ValueError(name)


COSINE = {"cosine": {"length": STEPS, "floor": 1e-3}}
WARM = {"warmup": {"length": 5, "from": 1e-4, "ramp": "linear", "then": "constant"}}
OPTIMIZERS = {
    "adam": (torch.optim.Adam, [
        dict(name="plain", options=dict(lr=0.05)),
        dict(name="l2", options=dict(lr=0.02, weight_decay=0.1, betas=[0.8, 0.95], eps=1e-6)),
        dict(name="even_beta", options=dict(lr=2e-3, betas=[0.5, 0.999])),
        dict(name="low_beta", options=dict(lr=2e-3, betas=[0.3, 0.9], amsgrad=True)),
        dict(name="cosine", options=dict(lr=0.05), schedule=COSINE),
        dict(name="clipped_norm", options=dict(lr=0.05), max_norm=0.5),
    ]),
    "adam_w": (torch.optim.AdamW, [
        dict(name="plain", options=dict(lr=0.01)),
        dict(name="groups", options=dict(lr=0.02, weight_decay=0.3),
             groups=[{}, dict(weight_decay=0.0, learning_rate_factor=0.1)]),
        dict(name="warmup", options=dict(lr=0.03, weight_decay=0.5, amsgrad=True), schedule=WARM),
    ]),
    "stable_adam_w": (StableAdamW, [
        dict(name="plain", options=dict(lr=0.02)),
        dict(name="dinomaly", options=dict(lr=2e-3, weight_decay=1e-4, amsgrad=True, eps=1e-10),
             schedule={"sequence": {"length": 4, "first": {"linear": {"length": 3, "from": 0.1, "to": 1.0}},
                                    "then": {"cosine": {"length": 10, "floor": 2e-4}}}}),
        dict(name="tight", options=dict(lr=0.05, weight_decay=0.1, betas=[0.9, 0.99], update_limit=0.4)),
    ]),
    "sgd": (torch.optim.SGD, [
        dict(name="plain", options=dict(lr=0.01)),
        dict(name="momentum", options=dict(lr=0.01, momentum=0.9), schedule={"step": {"every": 4, "factor": 0.3}}),
        dict(name="dampened", options=dict(lr=0.02, momentum=0.8, dampening=0.3, weight_decay=0.05)),
        dict(name="nesterov", options=dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01)),
        dict(name="clipped_value", options=dict(lr=0.1, momentum=0.5), max_value=0.7),
        dict(name="clipped_norm", options=dict(lr=0.1, momentum=0.5), max_norm=1.5),
    ]),
    "rms_prop": (torch.optim.RMSprop, [
        dict(name="plain", options=dict(lr=0.01)),
        dict(name="momentum", options=dict(lr=0.02, alpha=0.9, eps=1e-4, momentum=0.8, weight_decay=0.1),
             schedule={"multi_step": {"milestones": [3, 9], "factor": 0.5}}),
    ]),
    "adagrad": (torch.optim.Adagrad, [
        dict(name="plain", options=dict(lr=0.1)),
        dict(name="decayed", options=dict(lr=0.1, lr_decay=0.2, weight_decay=0.05, initial_accumulator_value=0.1,
                                          eps=1e-6)),
    ]),
    "adadelta": (torch.optim.Adadelta, [
        dict(name="plain", options=dict(lr=1.0)),
        dict(name="decayed", options=dict(lr=0.7, rho=0.95, eps=1e-4, weight_decay=0.1)),
    ]),
}

BASE = 0.3
SCHEDULES = [
    ("constant", "constant", 5),
    ("cosine_by_epoch", {"cosine": {"length": 10, "floor": 0.06}}, 11),
    ("cosine_by_step", {"cosine": {"length": 150, "floor": 0.0}}, 151),
    ("step", {"step": {"every": 3, "factor": 0.1}}, 12),
    ("multi_step", {"multi_step": {"milestones": [2, 5, 5, 9], "factor": 0.5}}, 12),
    ("exponential", {"exponential": {"factor": 0.9}}, 30),
    ("linear", {"linear": {"length": 6, "from": 0.25, "to": 0.75}}, 9),
    ("linear_decay", {"linear_decay": {"offset": 2, "constant": 5, "decay": 6}}, 14),
    ("warmup", {"warmup": {"length": 8, "from": 0.01, "ramp": "linear", "then": "constant"}}, 12),
    ("cosine_warmup", {"warmup": {"length": 8, "from": 0.01, "ramp": "cosine", "then": "constant"}}, 12),
    ("sequence", {"sequence": {"length": 5, "first": {"linear": {"length": 5, "from": 0.1, "to": 1.0}},
                               "then": {"cosine": {"length": 12, "floor": 0.01}}}}, 18),
    ("step_sequence", {"sequence": {"length": 4, "first": "constant", "then": {"step": {"every": 2, "factor": 0.5}}}},
     14),
]
PLATEAUS = [
    ("plateau_default", {}),
    ("plateau_patient", dict(factor=0.5, patience=2, threshold={"relative": 0.01})),
    ("plateau_cooled", dict(factor=0.2, patience=1, cooldown=3, threshold={"absolute": 0.02}, floor=0.001)),
    ("plateau_up", dict(better="higher", factor=0.3, patience=3, threshold={"relative": 0.05})),
    ("plateau_up_absolute", dict(better="higher", factor=0.7, patience=0, threshold={"absolute": 0.1},
                                 least_change=0.02)),
]


def one_parameter():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)


def rates_of(schedule, count):
    optimizer = one_parameter()
    scheduler = make_schedule(optimizer, schedule)
    rates, closed = [], []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        if hasattr(scheduler, "_get_closed_form_lr"):
            closed.append(scheduler._get_closed_form_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates, closed


def plateau(options):
    mode, limit = next(iter(options.get("threshold", {"relative": 1e-4}).items()))
    optimizer = one_parameter()
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode={"lower": "min", "higher": "max"}[options.get("better", "lower")],
        factor=options.get("factor", 0.1), patience=options.get("patience", 10), threshold=limit,
        threshold_mode={"relative": "rel", "absolute": "abs"}[mode], cooldown=options.get("cooldown", 0),
        min_lr=options.get("floor", 0.0), eps=options.get("least_change", 1e-8))
    values = [1 / (1 + t) + 0.1 * math.sin(1.7 * t) for t in range(60)]
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return values, rates


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    about = {"torch": torch.__version__.split("+")[0], "written_by": "tests/peers/optimizer_steps.py"}
    for kind, (make, cases) in OPTIMIZERS.items():
        tensors = {}
        for name, dtype in (("f32", torch.float32), ("f64", torch.float64)):
            a, b, gradients = start(dtype)
            tensors |= {f"{name}.start.a": a, f"{name}.start.b": b}
            tensors[f"{name}.gradients.a"] = torch.stack([g for g, _ in gradients])
            tensors[f"{name}.gradients.b"] = torch.stack([g for _, g in gradients])
            for case in cases:
                after_a, after_b, rates = run(make, case, dtype)
                tensors[f"{name}.{case['name']}.a"] = after_a
                tensors[f"{name}.{case['name']}.b"] = after_b
                tensors[f"rates.{case['name']}"] = rates
        settings = {"steps": STEPS, "without_gradient": {"b": list(WITHOUT)}, "cases": cases}
        save_file(tensors, folder / f"{kind}.safetensors", about | {"settings": json.dumps(settings)})
    tensors = {}
    for name, schedule, count in SCHEDULES:
        rates, closed = rates_of(schedule, count)
        tensors[f"{name}.rates"] = torch.tensor(rates, dtype=torch.float64)
        if closed:
            tensors[f"{name}.closed"] = torch.tensor(closed, dtype=torch.float64)
    for name, options in PLATEAUS:
        values, rates = plateau(options)
        tensors[f"{name}.values"] = torch.tensor(values, dtype=torch.float64)
        tensors[f"{name}.rates"] = torch.tensor(rates, dtype=torch.float64)
    settings = {"base": BASE, "schedules": {name: schedule for name, schedule, _ in SCHEDULES},
                "plateaus": dict(PLATEAUS)}
    save_file(tensors, folder / "schedules.safetensors", about | {"settings": json.dumps(settings)})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
