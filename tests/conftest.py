"""For all tests: Hypothesis without deadlines, since a busy machine is not a failure; `long` is for `scripts/fuzz`."""

from hypothesis import HealthCheck, settings

settings.register_profile("kit", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")
