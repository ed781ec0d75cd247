"""What a document claims, held against its own arithmetic and against simulation."""
