"""What libraries raise where a model's files are missing, damaged or of another kind."""

from safetensors import SafetensorError

NOT_LOADED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    ImportError,
    SafetensorError,
)
