"""What a chain is made of: one stage per kind of operator, over batches."""
