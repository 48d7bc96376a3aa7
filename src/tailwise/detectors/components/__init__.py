"""What several detectors are made of; no detector is defined here."""
