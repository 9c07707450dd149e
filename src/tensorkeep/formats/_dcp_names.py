"""What torch.distributed.checkpoint calls its files: all that opening another file has to know."""

METADATA = ".metadata"
SUFFIX = ".distcp"
