"""Points in time of a murder's mail, in a folder: taken while it runs, looked through, proved whole, put back, let go of."""
