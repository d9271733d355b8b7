"""The record types, prompts and parsers that every other room shares: text in, verdict out, no model."""
