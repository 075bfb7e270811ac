"""What several nets share. Every layer is a ``StreamingModule``."""
