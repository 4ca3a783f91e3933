"""The media process: aiortc, codecs, camera and sound, one call at a time."""
