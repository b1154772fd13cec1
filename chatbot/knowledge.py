"""The knowledge base: add, replace, delete and list documents, with the vectors kept in step with the catalogue."""
