"""The reward model behind HTTP: requests that arrive together are judged together."""
