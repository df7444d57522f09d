"""Base models: fetched once per cache, verified, and always found under one path by the engine."""
