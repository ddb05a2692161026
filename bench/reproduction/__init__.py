"""The paper, figure by figure: which runs each figure is of, how they are made, how it is drawn."""
