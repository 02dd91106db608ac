"""The web page: a view of one experiment. Delete this folder and all else works as before."""
