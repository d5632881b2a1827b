"""Colour jitter and colour drop of whole clips, in JAX.

Brightness, contrast, saturation, hue and grey are affine in a pixel's colour, so a clip's draw is one 3 x 3 matrix
and one offset, which the device applies in one pass. The ranges are those of DMVR's default colour augmentation;
hue turns the colour about the grey axis (in YIQ), where DMVR goes through HSV.

B clips, F frames, H height, W width.
"""

import jax
import jax.numpy as jnp
import numpy as np

BRIGHTNESS = 32.0  # greatest change, of 255
CONTRAST = (0.6, 1.4)
SATURATION = (0.6, 1.4)
HUE_TURNS = 0.2  # greatest turn of the colour circle

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GREY = np.tile(LUMA, (3, 1))
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def color_jitter(frames: jax.Array, seeds: jax.Array, probability: float, drop: float) -> jax.Array:
    """Other colours for some clips, grey for some; all frames of a clip alike.

    Args:
      frames: (B, F, H, W, 3), from 0 to 255.
      seeds: (B, 2) uint32; a row's result depends on its own seed and pixels alone.
      probability: that a clip's brightness, contrast, saturation and hue are changed.
      drop: probability that a clip turns grey.

    Returns:
      (B, F, H, W, 3) float32, from 0 to 255.
    """
    frames = frames.astype(jnp.float32)
    means = frames.mean(axis=(1, 2, 3))
    matrices, offsets = jax.vmap(lambda seed, mean: draw_affine(seed, mean, probability, drop))(seeds, means)
    m, b = matrices[:, None, None, None], offsets[:, None, None, None]
    # Written out, because a product with so small a matrix is four times slower on a CPU and inexact on some devices.
    turned = sum((frames[..., c : c + 1] * m[..., c] for c in range(3)), start=b)
    return jnp.clip(turned, 0, 255)


def draw_affine(seed: jax.Array, mean: jax.Array, probability: float, drop: float) -> tuple[jax.Array, jax.Array]:
    """One clip's change of colour: x' = M x + b, brightness first, then contrast, saturation and hue.

    Args:
      seed: (2,) uint32.
      mean: (3,) colour of the clip, about whose grey level contrast turns.
      probability: as above.
      drop: as above.

    Returns:
      M (3, 3) and b (3,).
    """
    u = jax.random.uniform(jax.random.wrap_key_data(seed, impl="threefry2x32"), (6,))
    brightness = BRIGHTNESS * (2 * u[0] - 1)
    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * u[1]
    saturation = SATURATION[0] + (SATURATION[1] - SATURATION[0]) * u[2]
    grey_level = LUMA @ mean + brightness
    matrix = contrast * _hue(HUE_TURNS * (2 * u[3] - 1)) @ (saturation * jnp.eye(3) + (1 - saturation) * _GREY)
    # Grey stays grey under saturation and hue, so that what is added equally to all channels passes unchanged.
    offset = jnp.full(3, contrast * brightness + (1 - contrast) * grey_level)
    changed = u[4] < probability
    matrix, offset = jnp.where(changed, matrix, jnp.eye(3)), jnp.where(changed, offset, 0.0)
    return jnp.where(u[5] < drop, _GREY @ matrix, matrix), offset


def _hue(turns: jax.Array) -> jax.Array:
    """The 3 x 3 matrix that turns colours about the grey axis."""
    c, s = jnp.cos(2 * jnp.pi * turns), jnp.sin(2 * jnp.pi * turns)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    turn = jnp.stack([jnp.stack([one, zero, zero]), jnp.stack([zero, c, -s]), jnp.stack([zero, s, c])])
    return jnp.asarray(_FROM_YIQ) @ turn @ jnp.asarray(_TO_YIQ)
