"""What the library knows of the Hugging Face Hub: addresses, buckets, and what may be read from and sent to them."""
