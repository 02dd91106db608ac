"""Energy and power sensors behind one seam."""
