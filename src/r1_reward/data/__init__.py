"""Preference pairs: importing, annotating, mixing, scoring and exporting them."""
