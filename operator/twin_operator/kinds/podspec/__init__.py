"""Parts of pod specs that engines, miners and trainers share."""
