"""Pictures, captions, tokens and frozen image features. Knows nothing of models."""
