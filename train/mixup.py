"""Mixup (Zhang et al., 2018) and modality mixup (section 4.2), on the device.

B examples in groups of g neighbours, K classes. An example is mixed with the one that stands opposite in its group:
x' = w x + (1 - w) x[::-1]. So no example leaves its group, and the result does not depend on the number of devices.
"""

import jax


def draw_weights(key: jax.Array, names: tuple[str, ...], *, groups: int, alpha: float, by_modality: bool) -> dict:
    """w ~ Beta(alpha, alpha), (groups,) for each modality: one for all of them, or one each."""
    keys = jax.random.split(key, len(names)) if by_modality else [key] * len(names)
    return {name: jax.random.beta(k, alpha, alpha, (groups,)) for name, k in zip(names, keys, strict=True)}


def mix(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mixes inputs or labels: (B, ...) with (groups,) weights to (B, ...)."""
    grouped = values.reshape(len(weights), -1, *values.shape[1:])
    w = weights.reshape(-1, *[1] * values.ndim)
    return (w * grouped + (1 - w) * grouped[:, ::-1]).reshape(values.shape)


def mix_batch(inputs: dict[str, jax.Array], labels: jax.Array, weights: dict[str, jax.Array]) -> tuple[dict, dict]:
    """Every modality with its weights, and the labels (B, K) likewise, by modality."""
    return {m: mix(x, weights[m]) for m, x in inputs.items()}, {m: mix(labels, weights[m]) for m in inputs}
