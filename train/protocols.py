"""What protocols have in common; `train/configs` has one file for each of them."""

from ml_collections import ConfigDict

from mbt.train.config import default_config


def paper(*, loss: str, train_split: str = "train", eval_split: str) -> ConfigDict:
    """The values of section 4.2, with modality mixup, as in the paper's main results.

    ViT-B, L_f = 8, B = 4, t = 8 s, 8 frames; SGD with momentum 0.9, learning rate 0.5 at a batch of 64, 50 epochs, of
    which 2.5 warm up; stochastic depth 0.3; random crop, flip, colour jitter, SpecAugment. What is not changed here is
    a default.

    Guesses, where the paper has no number: how often colours are jittered (0.8) and dropped (0.1) is the reference
    implementation's, as are the clipping of the gradient at norm 1 and the sum of the loss over classes.

    Args:
      loss: "bce" for any number of labels per clip, "ce" for one.
      train_split: as `mbt-data` names it for this dataset.
      eval_split: likewise.
    """
    config = default_config()
    config.data.update(train_split=train_split, eval_split=eval_split, color_jitter=0.8, color_drop=0.1)
    config.data.spec_augment.update(time_masks=1, time_rows=192, frequency_masks=1, frequency_bins=48)
    config.mixup.update(alpha=0.3, by_modality=True)
    config.loss.name = loss
    return config


def small() -> ConfigDict:
    """A model that learns from nothing, of one label per clip, in minutes: 4 layers of width 96, L_f = 2, AdamW."""
    config = default_config()
    config.model.update(size="vit_ti", width=96, depth=4, heads=3, mlp_dim=192, fusion_layer=2, stochastic_depth=0.0)
    config.loss.name = "ce"
    config.optim.update(name="adamw", weight_decay=0.05, warmup=0.1)
    config.train.batch_size = 32
    return config
