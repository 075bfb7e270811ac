"""One file an op, of the op's name: the shapes EnCodec and its kin use, beside torch eager."""
