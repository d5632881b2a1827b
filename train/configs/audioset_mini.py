"""AudioSet-mini, the balanced training list: the paper's main protocol (section 4.2).

    mbt-train train --config=audioset_mini --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

ROOT is made with `mbt-data build --dataset=audioset`; VIT_B_16.npz is a ViT-B/16 trained on ImageNet-21K, without
which the result is unknown.

Expected time: unknown. Expected result: 43.9 mAP (audio and video, modality mixup; 42.6 with plain mixup), from 20,361
clips for training and 18,589 for the test. Audio alone 31.3, video alone 27.7.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values."""
    return paper(loss="bce", train_split="balanced_train", eval_split="eval")
