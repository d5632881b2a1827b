"""VGGSound: one of 309 sounds, whose source is in sight.

    mbt-train train --config=vggsound --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=vggsound`; the paper had 172,427 clips for training and 14,448 for the test.

Expected time: unknown. Expected result (top-1, top-5): 64.1, 85.6. Guess: 50 epochs, as the paper says of training in
general.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values."""
    return paper(loss="ce", eval_split="test")
