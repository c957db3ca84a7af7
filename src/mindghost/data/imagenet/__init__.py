"""ImageNet: its files as they are downloaded, and the words for its classes. Importing it imports nothing."""
