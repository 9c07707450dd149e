"""tensorkeep: read, check and convert PyTorch checkpoints without running them."""
