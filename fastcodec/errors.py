"""The library's own errors. A bad argument is a plain ``ValueError``."""


class BackendError(RuntimeError):
    """A backend that was asked for by name cannot serve the call; the message says why."""


class WeightsError(ValueError):
    """A checkpoint does not fit the model, or may not be read; every offending key is listed."""


class FormatError(ValueError):
    """A file or packet is truncated, corrupted or not of the expected format."""
