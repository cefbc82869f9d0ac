"""What operators have: the command line, the page in a browser, the manual, a demo, and what does the work for them."""
