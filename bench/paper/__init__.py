"""The figures and tables of the paper, as functions of what runs leave behind."""
