"""A running hub for what is fuzzed over HTTP and WebSocket."""

from tests.adapters.hub.conftest import _mosquitto, hub, settings_of_hub, stopped_hub, template

__all__ = ["_mosquitto", "hub", "settings_of_hub", "stopped_hub", "template"]
