"""A small model that learns written and spoken digits from nothing, from films that `demo/make_digits.py` makes.

    mbt-train train --config=digits --workdir=DIR --config.data.root=ROOT

Expected time on 2 CPU cores: 2 minutes with both modalities. Expected result on held-out clips: top-1 of 0.98 with both
on sixteen pairs, of which one sense alone can tell a quarter; see docs/digits.md.

Patches of the spectrogram are 50 ms of the whole band: square ones are made for weights that were trained on much data.
"""

from mbt.train.protocols import small


def get_config():
    """The small model on windows of 1.5 s, two frames in each."""
    config = small()
    config.data.update(seconds=1.5, frames=2, crop=32, crop_area=(0.85, 1.0), flip=False, eval_crop=1.0, views=1)
    config.data.spec_augment.update(time_masks=1, time_rows=15, frequency_masks=1, frequency_bins=16)
    config.model.update(patch=(8, 8), spectrogram_patch=(5, 128))
    config.optim.learning_rate = 3e-3
    config.train.update(steps=1000, log_every=100, eval_every=0, checkpoint_every=500)
    return config
