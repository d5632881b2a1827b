"""AudioSet-mini with the values that Scenic released for MBT, where they differ from the paper's.

    mbt-train train --config=scenic_audioset_mini --workdir=DIR --config.data.root=ROOT --config.init.vit=VIT_B_16.npz

32 frames, every second one (2.56 s), in tubelets of two, beside 8 s of sound that begins with them and, where the clip
ends, goes on with its beginning; the mean of all patches before the head; mixup with alpha 0.5, one weight for both
modalities; label smoothing 0.3; one frequency mask. Model and inputs are those of the checkpoints that `mbt-train
import` reads.

As it really runs there, on the 32 devices of a 4x4 TPU that its comments name: gradients are clipped on every device,
which has two rows, and then averaged (`optim.clip`, `train.accumulate`, `mixup.group`); its four time masks have
`time_mask_max_ratio` 0, with which lingvo returns its input, so that there are none. A device here must have a row of
each part: on more than two, say `--config.train.accumulate=8 --config.mixup.group=8` on 8, which clips 8 rows together.

Expected time: unknown. Expected result: 43.9 mAP is what Scenic gives for its released model (audio 30.9, video 27.0);
whether this config made it is unknown, since there it cannot run as released, with bottlenecks.

Where this differs from the released values: frames are scaled by a random crop of 35 to 100 % of the area, there by
0.9 to 1.33 of the side; the spectrogram has one channel, there three equal ones, which a linear
projection cannot tell apart. The spectrogram's statistics are the dataset's own: Scenic's (1.102, 2.762) are of a
spectrogram that is not published, and on this one they would make every value wrong.
"""

from mbt.train.protocols import paper


def get_config():
    """The released values."""
    config = paper(loss="bce", train_split="balanced_train", eval_split="eval")
    config.data.update(frames=32, stride=2.0, alignment="wrapped", short="loop")
    config.data.spec_augment.update(time_masks=0)
    config.model.update(patch=(2, 16, 16), pooling="gap")
    config.mixup.update(alpha=0.5, by_modality=False, group=2)
    config.optim.clip = "part"
    config.train.accumulate = 32
    config.loss.label_smoothing = 0.3
    return config
