"""transformers: config, feature extractor and model for its Auto classes and pipelines.

``import exhubert_features`` registers them; nothing here needs to be imported by hand. They
live in three files because transformers loads its own three at different times.
"""
