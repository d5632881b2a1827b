"""Losses. B batch, K classes."""

import jax
import jax.numpy as jnp
import optax

from mbt.model.mbt import split_heads


def smooth(labels: jax.Array, smoothing: float) -> jax.Array:
    """Label smoothing: y (1 - s) + s / K."""
    return labels * (1 - smoothing) + smoothing / labels.shape[-1]


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy, summed over classes, averaged over examples. (B, K), (B, K) to ()."""
    return optax.sigmoid_binary_cross_entropy(logits, labels).sum(axis=-1).mean()


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, averaged over examples. (B, K), (B, K) to ()."""
    return optax.softmax_cross_entropy(logits, labels).mean()


LOSSES = {"bce": binary_cross_entropy, "ce": cross_entropy}


def loss_of(
    outputs: dict,
    labels: dict[str, jax.Array] | jax.Array,
    *,
    name: str,
    smoothing: float,
    on: str,
    heads: tuple[int, ...] = (),
) -> jax.Array:
    """Loss of a model's outputs.

    Args:
      outputs: of the model.
      labels: (B, K), from 0 to 1; or such by modality, which have to be the same where there is one vector of logits.
      name: "bce" or "ce".
      smoothing: of the labels.
      on: "modality" for each modality's own logits, the losses averaged; "mean_logits" for the averaged logits.
      heads: sizes of several heads, whose losses are averaged; () for one.
    """
    by_modality = outputs["logits_by_modality"] if on == "modality" else {"all": outputs["logits"]}
    targets = labels if isinstance(labels, dict) else dict.fromkeys(by_modality, labels)
    first = next(iter(targets.values()))
    losses = [
        LOSSES[name](logits, smooth(target, smoothing))
        for m, x in by_modality.items()
        for logits, target in zip(split_heads(x, heads), split_heads(targets.get(m, first), heads), strict=True)
    ]
    return jnp.stack(losses).mean()
