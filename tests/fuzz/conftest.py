"""A running hub for what is fuzzed over HTTP and WebSocket."""

from hypothesis import settings

from tests.adapters.hub.conftest import _mosquitto, hub, settings_of_hub, stopped_hub, template

__all__ = ["_mosquitto", "hub", "is_long", "settings_of_hub", "stopped_hub", "template"]


def is_long() -> bool:
    """Whether `scripts/fuzz` runs this."""
    return settings.default is not None and settings.default.max_examples > 1000
