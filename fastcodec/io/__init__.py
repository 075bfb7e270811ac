"""Files: audio, checkpoints, containers of codes. Knows no codec and no model."""
