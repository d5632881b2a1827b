"""The Multimodal Bottleneck Transformer, and nothing of data or training."""
