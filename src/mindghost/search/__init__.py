"""What is like what: images -> vectors -> an index that is asked for neighbours.

The vectors are a network's embeddings (`embed`, `vectors`, `vector_file`). An index is a file of them (`index`), asked
exactly (`exact`) or by way of a graph of neighbours (`graph`), and brought up to date with a folder (`sync`). Images
that are there twice (`duplicates`) are found by what they look like (`signature`), too, among all pairs (`pairs`).
"""
