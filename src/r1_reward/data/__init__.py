"""Preference pairs: files, pictures, and the worlds they come from."""
