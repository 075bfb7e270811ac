"""Whole codecs beside their published implementations, one file a family."""
