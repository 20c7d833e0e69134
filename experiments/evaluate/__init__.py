"""Disentanglement and likelihood scores of finished runs."""
