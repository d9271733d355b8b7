"""Serve a reward model over HTTP; requests that arrive together are judged in one batch."""
