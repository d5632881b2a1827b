"""A small model that learns the demo's pairs of a sight and a sound from nothing.

    mbt-train train --config=demo --workdir=DIR --config.data.root=ROOT

Expected time on 2 CPU cores: 45 s with both modalities, half of it with one. Expected result on held-out clips:
top-1 of 1.0 with both, 0.25 with one, which is all that one sense can tell.
"""

from mbt.train.config import default_config


def get_config():
    """A 4-layer model on 2-second windows of 4 frames."""
    config = default_config()
    config.data.update(seconds=2.0, frames=4, crop=48, crop_area=(0.6, 1.0), views=2)
    config.model.update(
        size="vit_ti",
        width=96,
        depth=4,
        heads=3,
        mlp_dim=192,
        fusion_layer=2,
        stochastic_depth=0.0,
    )
    config.loss.name = "ce"
    config.optim.update(name="adamw", learning_rate=1e-3, weight_decay=0.05, warmup=0.1)
    config.train.update(batch_size=32, steps=120, log_every=10, eval_every=40, checkpoint_every=60)
    return config
