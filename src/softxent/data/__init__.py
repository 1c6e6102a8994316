"""Handwritten digits for the demo; where they come from is in README.md beside this file."""
