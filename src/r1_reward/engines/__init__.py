"""Engines that answer requests: a model in this process, servers, or a scalar reward model."""
