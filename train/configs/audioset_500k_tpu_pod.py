"""`audioset_500k` on a slice of 32 TPU chips, in bfloat16: an example of a mesh with both axes.

    mbt-train train --config=audioset_500k_tpu_pod --workdir=DIR --distributed \\
        --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

The same command on every host (docs/launch.md), with DIR and ROOT on a file system that all of them see. Parameters and
optimizer are cut in four along `fsdp`; the batch of 256 is spread over all 32 chips, and the learning rate, which is
given for 64, scales with it to 2.0. Layers are computed again in the backward pass, to save memory.

Expected time: unknown. Expected result: unknown, since the batch is not the paper's. Guess: that training at four times
the rate stays stable; `--config.train.batch_size=64` is the paper's.
"""

from mbt.train.protocols import paper


def get_config():
    """The paper's values, at a larger batch on a mesh."""
    config = paper(loss="bce", eval_split="eval")
    config.model.update(dtype="bfloat16", remat=True)
    config.train.update(batch_size=256, eval_batch_size=256)
    config.train.mesh.update(data=8, fsdp=4)
    return config
