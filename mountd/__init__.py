"""mountd makes an object-storage bucket a dependable disk for a TTS service."""

__version__ = "0.1.0"
