"""A small model that learns the demo's pairs of a sight and a sound from nothing.

    mbt-train train --config=demo --workdir=DIR --config.data.root=ROOT

Expected time on 2 CPU cores: 45 s with both modalities, half of it with one. Expected result on held-out clips:
top-1 of 1.0 with both, 0.25 with one, which is all that one sense can tell.
"""

from mbt.train.protocols import small


def get_config():
    """The small model on 2-second windows of 4 frames."""
    config = small()
    config.data.update(seconds=2.0, frames=4, crop=48, crop_area=(0.6, 1.0), views=2)
    config.optim.learning_rate = 1e-3
    config.train.update(steps=120, log_every=10, eval_every=40, checkpoint_every=60)
    return config
