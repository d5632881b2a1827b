"""EPIC-KITCHENS-100: a verb of 97 and a noun of 300, from two heads.

    mbt-train train --config=epic_kitchens --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=epic_kitchens`. Segments last 2.6 s on average, so the paper takes 32
neighbouring frames (1.28 s): 6272 patches, four times those of the other sets, and 1300 GMAC instead of 217.
`--config.model.remat=true` saves memory.

Expected time: unknown. Expected result, top-1 of action, noun and verb: 43.4, 58.0, 64.8.

Guesses: 50 epochs, as the paper says of training in general; t = 8 s of sound, its best value. That sound begins with
the frames, goes on at the segment's beginning where that ends, and so do the frames, is how the reference samples.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values."""
    config = paper(loss="ce", eval_split="validation")
    config.data.update(frames=32, stride=1.0, alignment="wrapped", short="loop")
    config.model.head_sizes = (97, 300)
    return config
