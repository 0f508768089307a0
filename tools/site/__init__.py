"""What the site's pages take from the code: the matrix of methods, a page each, errors by message, and all pictures.

``docs/conf.py`` runs it before Sphinx reads the pages; what it writes is not committed.
"""
