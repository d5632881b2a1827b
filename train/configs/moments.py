"""Moments in Time: one of 339 classes (305 in version 2) for 3 seconds.

    mbt-train train --config=moments --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=moments`.

Expected time: unknown. Expected result (top-1, top-5): 37.3, 61.2. Its appendix, which we lack, has how;
guesses: t = 3 s, the whole clip, seen once in the test; the rest as on VGGSound.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values for its other datasets, on windows of a whole clip."""
    config = paper(loss="ce", eval_split="validation")
    config.data.update(seconds=3.0, views=1)
    return config
