"""Kinetics-400: one of 400 actions.

    mbt-train train --config=kinetics400 --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=kinetics`.

Expected time: unknown. Expected result (top-1, top-5): 80.8, 94.6. Its appendix, which we lack, has how;
guesses: everything is as on AudioSet, but the loss, which is that of VGGSound.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values for its other datasets."""
    return paper(loss="ce", eval_split="val")
