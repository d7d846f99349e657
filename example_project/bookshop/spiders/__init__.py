"""The spiders, one a module; `base` holds what they share."""
