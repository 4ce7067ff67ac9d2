"""Words and names in many languages with their English, from dictionaries that package registries hold."""
