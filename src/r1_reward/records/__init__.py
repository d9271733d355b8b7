"""The records that travel through the package, the prompt, the parser: texts in, verdicts out; no model."""
