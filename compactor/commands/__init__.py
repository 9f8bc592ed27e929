"""The commands of `compactor` that have a module of their own."""
