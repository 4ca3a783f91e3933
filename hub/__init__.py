"""The reference hub: waiting room, inbox, doctor's console, intake."""
