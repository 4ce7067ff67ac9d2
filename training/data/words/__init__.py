"""The common words of languages, in all their forms, with the English that fits each best."""
