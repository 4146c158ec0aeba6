"""Which kernel a commit would launch, computed from its own source: no GPU, and MLX is not built."""
