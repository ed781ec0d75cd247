"""In which order waiting requests are dispatched."""
