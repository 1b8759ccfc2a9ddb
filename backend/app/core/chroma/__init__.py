"""The one way to Chroma: client factory, directory lock, name resolution, search."""
