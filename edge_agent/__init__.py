"""The kiosk's agent: call, link, media, outbox, MQTT and configuration."""
