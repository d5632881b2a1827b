"""AudioSet, balanced training list (AudioSet-mini), as in section 4 of the paper; from random weights, without mixup.

    mbt-train train --config=audioset_mini --workdir=DIR --config.data.root=ROOT

Expected time: unknown. Expected result: unknown without pretrained weights and mixup; the paper, with both,
reaches 43.9 mAP with audio and video together.
"""

from mbt.train.config import default_config


def get_config():
    """The paper's values, which are the defaults."""
    config = default_config()
    config.data.eval_split = "eval"
    return config
