"""Pictures split into their regions: a mixture over pixels, and the map of its labels."""
