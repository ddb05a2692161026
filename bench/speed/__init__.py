"""What a step costs: against rivals, by stage, over sizes, on a GPU."""
