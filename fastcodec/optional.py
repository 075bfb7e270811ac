"""Optional packages: imported where they are used, and named with their extra when missing."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str, purpose: str) -> Any:
    """The imported ``module``.

    Args:
        module: import name, e.g. ``"soundfile"``
        extra: fastcodec's extra that installs it, e.g. ``"audio"``
        purpose: what it is needed for, e.g. ``"reading audio files"``

    Raises:
        ImportError: it cannot be imported; the message names the extra and the true reason
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {module!r} ({error}); "
            f'install it with: pip install "fastcodec[{extra}]"'
        ) from error
