"""Files on disk -> samples -> augmented, mixed batches.

Everything random is a function of (seed, epoch, sample), never of what came before.
"""
