"""Reports."""
def write_reports(folder, scenario, summary, manifest):
    """Write."""
