"""What methods cost: bills from run folders, tables, figures, and the paper's figures beside them."""
