"""`audioset_mini` on one machine with eight GPUs, in bfloat16: an example of a mesh.

    mbt-train train --config=audioset_mini_gpu --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

Batch, rate and regularisation are `audioset_mini`'s: each GPU takes 8 of the 64 clips, and parameters lie whole on
each. Fewer GPUs: `--config.train.mesh.data=1`.

Expected time: unknown. Expected result: that of `audioset_mini`; in bfloat16 unknown.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values, on a mesh."""
    config = paper(loss="bce", train_split="balanced_train", eval_split="eval")
    config.model.dtype = "bfloat16"
    config.train.mesh.update(data=8, fsdp=1)
    return config
