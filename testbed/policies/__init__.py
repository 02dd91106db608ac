"""Policies that choose a GPU clock and a batch, or wait, behind one seam."""
