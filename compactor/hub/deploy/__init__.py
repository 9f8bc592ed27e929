"""Puts a store's dashboard on a Hugging Face Space: what is wanted, what is there, the plan between them, doing it."""
