"""Camera, microphone, speaker, button and lamp behind small contracts, and a simulated board."""
