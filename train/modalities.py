"""The modalities that records have, and what the config calls their parts."""

RGB = "rgb"
SPECTROGRAM = "spectrogram"
CHANNELS = {RGB: 3, SPECTROGRAM: 1}
# Keys of config.model that have their patches.
PATCH_KEYS = {RGB: "patch", SPECTROGRAM: "spectrogram_patch"}
