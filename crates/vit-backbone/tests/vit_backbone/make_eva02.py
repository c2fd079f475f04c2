#!/usr/bin/env python3
"""Writes eva02.safetensors: timm's own EVA-02 with small sizes and seeded weights, at the trained and at another grid.

    python3 make_eva02.py            # needs torch, safetensors and timm 0.9.16

`packed` is built as timm builds the tiny and small sizes (packed queries, keys and values, packed gate, no inner norm),
`split` as the base and large ones. The position table of the second grid is resampled by timm's own loader.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.eva import Eva, checkpoint_filter_fn

SIZES = dict(patch_size=4, embed_dim=24, depth=2, num_heads=2, mlp_ratio=4 * 2 / 3, num_classes=0)
KINDS = dict(
    packed=dict(qkv_fused=True, swiglu_mlp=True, scale_mlp=False),
    split=dict(qkv_fused=False, swiglu_mlp=True, scale_mlp=True),
)


def build(kind: dict, side: tuple[int, int]) -> Eva:
    return Eva(img_size=side, use_rot_pos_emb=True, ref_feat_shape=(16, 16), **SIZES, **kind).eval()


def main() -> None:
    out = {}
    with torch.no_grad():
        for name, kind in KINDS.items():
            torch.manual_seed(len(name))
            trained = build(kind, (16, 16))
            state = trained.state_dict()
            for key, value in state.items():
                noise = torch.randn(value.shape) * 0.3
                # Gains stay near 1, weights get a size at which attention is not flat.
                one_dimensional = value.ndim == 1 and key.endswith("weight")
                value.copy_(1 + noise if one_dimensional else noise)
            other = build(kind, (24, 20))
            other.load_state_dict(checkpoint_filter_fn(dict(state), other))
            for grid, model, side in (("trained", trained, (16, 16)), ("other", other, (24, 20))):
                images = torch.randn(2, 3, *side)
                blocks = []
                hooks = [b.register_forward_hook(lambda _, __, y: blocks.append(y)) for b in model.blocks]
                tokens = model.forward_features(images)
                pooled = model.forward_head(tokens, pre_logits=True)
                for hook in hooks:
                    hook.remove()
                out[f"{name}.{grid}.images"] = images
                out[f"{name}.{grid}.block0"] = blocks[0]
                out[f"{name}.{grid}.tokens"] = tokens
                out[f"{name}.{grid}.pooled"] = pooled
            for key, value in state.items():
                out[f"{name}.w.{key}"] = value.clone()
    save_file({k: v.contiguous() for k, v in out.items()}, Path(__file__).parent / "eva02.safetensors")


if __name__ == "__main__":
    main()
