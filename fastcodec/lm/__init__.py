"""Language models over the codes of audio codecs."""
