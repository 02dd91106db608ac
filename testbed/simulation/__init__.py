"""Models of devices: what a trial takes and costs, from measured tables, and the requests that arrive meanwhile."""
