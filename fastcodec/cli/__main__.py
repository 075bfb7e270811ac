"""``python -m fastcodec.cli`` is the command ``fastcodec``."""

from fastcodec.cli import main

main()
