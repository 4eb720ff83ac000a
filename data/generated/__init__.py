"""What the generators draw from: tables, templates, small simulated worlds; the sources are one folder up."""
