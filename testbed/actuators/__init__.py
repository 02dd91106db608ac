"""Settings of devices that hold for a trial, one file each."""
