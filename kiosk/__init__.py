"""What patient and health worker see, hear and press; and the `teleconsult` command."""
