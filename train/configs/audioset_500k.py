"""AudioSet-500K: 500,000 clips, more balanced than the full list.

    mbt-train train --config=audioset_500k --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=as500k`, whose choice of clips is ours: the paper's recipe is in its
appendix, which we lack.

Expected time: unknown. Expected result: about 52 mAP (5.9 above the best before it, or 12.7 % of that), with the
paper's clips; with ours unknown. Guess: 50 epochs, as the paper says of training in general.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values."""
    return paper(loss="bce", eval_split="eval")
