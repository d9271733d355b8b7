"""Publish a trained folder to the Hugging Face Hub: weights, processor, calibration, recipe and model card."""
