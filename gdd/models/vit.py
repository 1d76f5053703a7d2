"""The vision transformer (Dosovitskiy et al. 2021), timm's, with patches for small images."""

from functools import partial

from timm.models.vision_transformer import Attention, VisionTransformer
from torch import nn

from gdd.config import ConfigError
from gdd.models.layers import Classifier, DifferentiableLayerNorm, Shape

PATCH = 4
HEAD_WIDTH = 64


def vit(shape: Shape, num_classes: int, *, width: int, depth: int) -> Classifier:
    """Build a transformer over patches of 4x4 pixels, whose class token is the embedding; width 192 is ViT-Tiny's.

    Args:
        shape: (C, H, W).
        num_classes: outputs.
        width: of each token; every 64 of them, or a narrower token as a whole, are one head.
        depth: blocks of attention and MLP.

    Raises:
        ConfigError: the patches do not divide an image, or the heads a token.
    """
    if shape[1] % PATCH or shape[2] % PATCH:
        raise ConfigError(f"a vit has patches of {PATCH} pixels, which do not divide images of {shape[1]}x{shape[2]}")
    heads = max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ConfigError(f"a vit of width {width} has {heads} heads, which do not divide it: choose another width")
    features = VisionTransformer(
        img_size=shape[1:],
        patch_size=PATCH,
        in_chans=shape[0],
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        norm_layer=partial(DifferentiableLayerNorm, eps=1e-6),
    )
    for module in features.modules():
        if isinstance(module, Attention):
            module.fused_attn = False  # type: ignore[misc]  # the fused kernel has no second derivative
    return Classifier(nn.Sequential(features), nn.Linear(width, num_classes))
