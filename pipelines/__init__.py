"""Recipes: each module takes a real table from its source to a finished result."""
