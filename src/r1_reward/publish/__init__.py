"""From a trained folder to the Hugging Face Hub: weights, processor, calibration, recipe, model card."""
