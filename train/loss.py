"""Losses. B batch, K classes."""

import jax
import jax.numpy as jnp
import optax


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


def loss_of(outputs: dict, labels: jax.Array, *, name: str, smoothing: float, on: str) -> jax.Array:
    """Loss of a model's outputs.

    Args:
      outputs: of the model.
      labels: (B, K), 0 or 1.
      name: "bce" or "ce".
      smoothing: of the labels.
      on: "modality" for each modality's own logits, the losses averaged; "mean_logits" for the averaged logits.
    """
    labels = smooth(labels, smoothing)
    if on == "mean_logits":
        return LOSSES[name](outputs["logits"], labels)
    losses = [LOSSES[name](logits, labels) for logits in outputs["logits_by_modality"].values()]
    return jnp.stack(losses).mean()
