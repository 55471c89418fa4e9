"""Whether it learns: tasks, budgets, what others reached, and what is aimed at."""
