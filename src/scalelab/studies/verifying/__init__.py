"""Does a strategy compute what one process would?"""
