"""Networks: `(x [b ...], time [b], cond) -> [b ...]`. They know no diffusion, guidance or data."""
