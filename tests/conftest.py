"""For all tests: Hypothesis without deadlines, since a busy machine is not a failure."""

from hypothesis import settings

settings.register_profile("kit", deadline=None)
settings.load_profile("kit")
