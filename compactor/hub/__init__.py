"""What goes between a store and a bucket of the Hugging Face Hub."""
